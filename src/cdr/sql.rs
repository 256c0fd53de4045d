//! CDR tables in MariaDB or MySQL, PostgreSQL and SQLite: one connection, read-only, short queries with
//! pauses between them, along an index. Columns and indexes are discovered.
//!
//! Every value in a query is made here of digits, or is a name that the database itself told.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use parsers::{Cdr, Micros};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, ValueRef as _};
use tokio::time::timeout;
use url::Url;

use super::columns::{Column, Columns, Field, born};
use super::paging::{Ask, Cursor, LONGEST_PAUSE, LONGEST_PAUSE_OF_SCANS, MOST_IN_ONE, Took, pause};
use super::sql_error::explain;
use super::store::{Order, Page, Span, StoreError};
use super::zone;

const CONNECT: Duration = Duration::from_secs(5);
/// The store itself is asked to give up after 5 s; this is for one that does not.
const QUERY: Duration = Duration::from_secs(10);
/// Rows that tell how times and ids are written.
const SAMPLE: usize = 200;
/// Where Debian, Red Hat and their kin put MySQL's socket: `localhost` means it to every other client.
const SOCKETS: [&str; 3] = ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];

/// How rows are found by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The start's index.
    Start,
    /// The index of uniqueids, which begin with an epoch; with the system's name before it.
    Uniqueid { prefix: String },
    /// The order of insertion.
    Counter(String),
    /// No index at all: the whole table for each day.
    Scan,
}

/// A table that is open for reading.
#[derive(Debug)]
pub(super) struct Sql {
    connection: Connection,
    table: String,
    columns: Columns,
    key: Key,
    /// The latest rows, as they are stored.
    pub sample: Vec<Cdr>,
    cursor: Option<Cursor>,
    /// How long the last query took, to be paused for before the next.
    took: Duration,
}

#[derive(Debug)]
enum Connection {
    MySql(Box<MySqlConnection>),
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
}

type Texts = Vec<Option<String>>;

impl Sql {
    /// Connects and discovers.
    ///
    /// # Errors
    /// Named, with what to do.
    pub async fn open(url: &Url, table: &str) -> Result<Self, StoreError> {
        let connection = Connection::open(url).await?;
        let mut sql = Self {
            connection,
            table: table.to_owned(),
            columns: Columns { read: Vec::new(), counter: None },
            key: Key::Scan,
            sample: Vec::new(),
            cursor: None,
            took: Duration::ZERO,
        };
        let described = sql.describe().await?;
        sql.columns = Columns::discover(table, &described, sql.connection.remedy_for_columns())?;
        sql.key = sql.best_key();
        sql.sample = sql.latest().await?;
        if matches!(sql.key, Key::Uniqueid { .. }) {
            let mut ends = sql.sample.clone();
            ends.extend(sql.lowest_id().await?);
            sql.key = match system_name(&ends) {
                Some(prefix) => Key::Uniqueid { prefix },
                // ids of another form, or of two systems: rows would be passed over
                None => sql.counter(),
            };
        }
        Ok(sql)
    }

    /// Whether its times are moments of themselves, which the query has as UTC.
    pub fn has_moments(&self) -> bool {
        self.columns.get(Field::Start).is_some_and(|column| self.connection.is_moment(column))
    }

    pub fn order(&self) -> Order {
        if matches!(self.key, Key::Counter(_)) { Order::End } else { Order::Start }
    }

    /// The columns that are read, by name.
    pub fn columns(&self) -> Vec<String> {
        self.columns.read.iter().map(|(_, column)| column.name.clone()).collect()
    }

    /// How rows are found, for people.
    pub fn paging(&self) -> String {
        match &self.key {
            Key::Start => format!("the index on {}", self.name(Field::Start)),
            Key::Uniqueid { .. } => "the index on uniqueid".to_owned(),
            Key::Counter(name) => format!("the counter {name}"),
            Key::Scan => "no index: the whole table for each day".to_owned(),
        }
    }

    /// What to do about a table without an index.
    pub fn advice(&self) -> Option<String> {
        (self.key == Key::Scan).then(|| {
            format!("CREATE INDEX calldate ON {} ({}), at night", self.table, self.name(Field::Start))
        })
    }

    /// Starts over with this span; `clock` is what the store's times are in.
    ///
    /// # Errors
    /// Named, with what to do.
    pub async fn begin(&mut self, span: Span, clock: &TimeZone) -> Result<(), StoreError> {
        let cursor = match self.key.clone() {
            Key::Start => {
                let (from, to) = (position(span.from, clock), position(span.to, clock));
                Cursor::new(self.first_row(from, to).await?, to)
            }
            Key::Scan => Cursor::new(position(span.from, clock), position(span.to, clock)),
            Key::Uniqueid { .. } => {
                let (from, to) = (span.from.secs(), span.to.secs());
                Cursor::new(self.first_row(from, to).await?, to)
            }
            Key::Counter(name) => {
                let first = self.first_since(&name, position(span.from, clock)).await?;
                let end = self.first_since(&name, position(span.to, clock)).await?;
                Cursor::new(first, end)
            }
        };
        self.cursor = Some(cursor);
        Ok(())
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// Named, with what to do.
    pub async fn next(&mut self, clock: &TimeZone) -> Result<Option<Page>, StoreError> {
        let Some(ask) = self.cursor.as_ref().and_then(Cursor::ask).map(|ask| self.widened(ask)) else {
            return Ok(None);
        };
        let found = self.query(&self.select(ask)).await?;
        let mut rows: Vec<(i64, Cdr)> = Vec::with_capacity(found.len());
        for mut texts in found {
            let counted = matches!(self.key, Key::Counter(_)).then(|| texts.pop().flatten());
            let cdr = self.columns.row(texts);
            rows.push((self.position_of(&cdr, counted.flatten().as_deref(), ask.from), cdr));
        }
        rows.sort_by_key(|(position, _)| *position);
        let positions: Vec<i64> = rows.iter().map(|(position, _)| *position).collect();
        if self.key == Key::Scan && positions.len() == ask.limit {
            let what =
                format!("{} has more than {MOST_IN_ONE} rows a day and no index to find them by", self.table);
            return Err(StoreError::new(what, self.advice().unwrap_or_default()));
        }
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        let count = match cursor.took(ask, &positions) {
            Took::Rows(count) => count,
            Took::TooMany => {
                let what = format!("more than {MOST_IN_ONE} rows of {} are of one moment", self.table);
                return Err(StoreError::new(what, "see what writes there; it is no telephone traffic"));
            }
        };
        let reached = cursor.ask().map(|next| match self.key {
            Key::Start | Key::Scan => instant(next.from, clock),
            Key::Uniqueid { .. } => Micros::from_secs(next.from),
            Key::Counter(_) => Micros(0),
        });
        rows.truncate(count);
        Ok(Some(Page { rows: rows.into_iter().map(|(_, cdr)| cdr).collect(), reached }))
    }

    /// The first position in a span that has a row, by the index: before it there is nothing to page
    /// through.
    async fn first_row(&mut self, from: i64, to: i64) -> Result<i64, StoreError> {
        if from >= to {
            return Ok(to);
        }
        let found = self.query(&self.select(Ask { from, to, limit: 1 })).await?;
        let Some(texts) = found.into_iter().next() else { return Ok(to) };
        let cdr = self.columns.row(texts);
        Ok(self.position_of(&cdr, None, from).clamp(from, to))
    }

    /// Without an index each query reads the whole table, so a day at once.
    fn widened(&self, ask: Ask) -> Ask {
        if self.key != Key::Scan {
            return ask;
        }
        let end = self.cursor.as_ref().map_or(ask.to, Cursor::end);
        Ask { to: ask.from.saturating_add(86_400).min(end), limit: MOST_IN_ONE + 1, ..ask }
    }

    fn best_key(&self) -> Key {
        let indexed = |field| self.columns.get(field).is_some_and(|column| column.indexed);
        // the start finds every row; ids that Originate gave have no epoch
        if indexed(Field::Start) {
            return Key::Start;
        }
        if indexed(Field::Uniqueid) {
            return Key::Uniqueid { prefix: String::new() };
        }
        self.counter()
    }

    fn counter(&self) -> Key {
        self.columns.counter.as_ref().map_or(Key::Scan, |column| Key::Counter(column.name.clone()))
    }

    /// The row with the lowest id: what stands before the epoch in the highest ones need not stand there.
    async fn lowest_id(&mut self) -> Result<Option<Cdr>, StoreError> {
        let id = self.quoted(self.name(Field::Uniqueid));
        let (list, table, order) = (self.select_list(), self.table(), self.in_order(&id));
        let rows = self.query(&format!("{list} FROM {table} WHERE {id} > '' {order} LIMIT 1")).await?;
        Ok(rows.into_iter().next().map(|texts| self.columns.row(texts)))
    }

    fn name(&self, field: Field) -> &str {
        self.columns.get(field).map_or("", |column| &column.name)
    }

    fn quoted(&self, name: &str) -> String {
        self.connection.quoted(name)
    }

    fn table(&self) -> String {
        let parts: Vec<_> = self.table.split('.').map(|part| self.quoted(part)).collect();
        parts.join(".")
    }

    /// `SELECT` of every column that is read, as text.
    fn select_list(&self) -> String {
        let texts: Vec<_> =
            self.columns.read.iter().map(|(_, column)| self.connection.text_of(column)).collect();
        format!("SELECT {}", texts.join(", "))
    }

    fn select(&self, ask: Ask) -> String {
        let (list, table) = (self.select_list(), self.table());
        let Ask { from, to, limit } = ask;
        match &self.key {
            Key::Start => {
                let (start, (from, to)) = (self.start(), (self.moment(from), self.moment(to)));
                format!(
                    "{list} FROM {table} WHERE {start} >= '{from}' AND {start} < '{to}' {} LIMIT {limit}",
                    self.in_order(&start)
                )
            }
            Key::Scan => {
                let (start, (from, to)) = (self.start(), (self.moment(from), self.moment(to)));
                format!("{list} FROM {table} WHERE {start} >= '{from}' AND {start} < '{to}' LIMIT {limit}")
            }
            Key::Uniqueid { prefix } => {
                let id = self.quoted(self.name(Field::Uniqueid));
                format!(
                    "{list} FROM {table} WHERE {id} >= '{prefix}{from:010}' AND {id} < '{prefix}{to:010}' {} LIMIT {limit}",
                    self.in_order(&id)
                )
            }
            Key::Counter(name) => {
                let counter = self.quoted(name);
                let text = self.connection.text_of_number(&counter);
                format!(
                    "{list}, {text} FROM {table} WHERE {counter} >= {from} AND {counter} < {to} {} LIMIT {limit}",
                    self.in_order(&counter)
                )
            }
        }
    }

    fn start(&self) -> String {
        self.quoted(self.name(Field::Start))
    }

    /// By a column, with its table: alone, its name would be that of the text that PostgreSQL answers with,
    /// which is in another order (`"10"` before `"9"`) and has no index.
    fn in_order(&self, quoted: &str) -> String {
        format!("ORDER BY {}.{quoted}", self.table())
    }

    /// A position as the store writes times.
    fn moment(&self, position: i64) -> String {
        let text = zone::local_text(Micros::from_secs(position), &TimeZone::UTC).unwrap_or_default();
        if self.has_moments() { format!("{text}+00") } else { text }
    }

    fn position_of(&self, cdr: &Cdr, counted: Option<&str>, default: i64) -> i64 {
        let position = match &self.key {
            Key::Start | Key::Scan => cdr
                .start
                .as_deref()
                .and_then(|text| zone::instant(text, &TimeZone::UTC, None))
                .map(Micros::secs),
            Key::Uniqueid { .. } => born(cdr).map(Micros::secs),
            Key::Counter(_) => counted.and_then(|text| text.trim().parse().ok()),
        };
        position.unwrap_or(default)
    }

    /// The counter's first value whose row is of this moment or later: rows are inserted as calls end.
    async fn first_since(&mut self, counter: &str, moment: i64) -> Result<i64, StoreError> {
        let (name, table, start) = (self.quoted(counter), self.table(), self.start());
        let (number, moment) = (self.connection.text_of_number(&name), self.moment(moment));
        let text =
            self.columns.get(Field::Start).map(|column| self.connection.text_of(column)).unwrap_or_default();
        let edge = |rows: &[Texts]| rows.first()?.first()?.as_deref()?.trim().parse::<i64>().ok();
        let order = self.in_order(&name);
        let first = self.query(&format!("SELECT {number} FROM {table} {order} LIMIT 1")).await?;
        let last = self.query(&format!("SELECT {number} FROM {table} {order} DESC LIMIT 1")).await?;
        let (Some(mut low), Some(last)) = (edge(&first), edge(&last)) else { return Ok(0) };
        let mut high = last.saturating_add(1);
        while low < high {
            let middle = low + (high - low) / 2;
            let sql = format!(
                "SELECT {text} FROM {table} WHERE {name} >= {middle} AND {start} IS NOT NULL {order} LIMIT 1"
            );
            let found = self.query(&sql).await?;
            let later = match found.first().and_then(|row| row.first()?.as_deref()) {
                Some(text) => text >= moment.as_str(),
                None => true,
            };
            if later {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The newest rows that an index gives.
    async fn latest(&mut self) -> Result<Vec<Cdr>, StoreError> {
        let by = match &self.key {
            Key::Start => self.start(),
            Key::Uniqueid { .. } => self.quoted(self.name(Field::Uniqueid)),
            Key::Counter(name) => self.quoted(name),
            Key::Scan => String::new(),
        };
        let order = match (by.as_str(), &self.connection) {
            ("", _) => by,
            // where NULL is above all else
            (_, Connection::Postgres(_)) => format!("WHERE {by} IS NOT NULL {} DESC", self.in_order(&by)),
            _ => format!("{} DESC", self.in_order(&by)),
        };
        let sql = format!("{} FROM {} {order} LIMIT {SAMPLE}", self.select_list(), self.table());
        let rows = self.query(&sql).await?;
        Ok(rows.into_iter().map(|texts| self.columns.row(texts)).collect())
    }

    async fn describe(&mut self) -> Result<Vec<Column>, StoreError> {
        let [columns, indexes] = self.connection.catalogue(&self.table);
        let columns = self.query(&columns).await?;
        if columns.is_empty() {
            let what = format!("there is no table {}, or this user may not see it", self.table);
            return Err(StoreError::new(what, self.connection.remedy_for_table(&self.table)));
        }
        let indexed: Vec<String> =
            self.query(&indexes).await?.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        let text = |row: &Texts, n: usize| row.get(n).cloned().flatten().unwrap_or_default();
        let column = |row: &Texts| {
            let name = text(row, 0);
            let counts = text(row, 2) == "1";
            Column {
                // SQLite's rowid needs no index of its own
                indexed: indexed.contains(&name) || counts && self.connection.is_sqlite(),
                kind: text(row, 1).to_lowercase(),
                counts,
                name,
            }
        };
        Ok(columns.iter().map(column).collect())
    }

    async fn query(&mut self, sql: &str) -> Result<Vec<Texts>, StoreError> {
        let longest = if self.key == Key::Scan { LONGEST_PAUSE_OF_SCANS } else { LONGEST_PAUSE };
        tokio::time::sleep(pause(self.took, longest)).await;
        let begun = Instant::now();
        let answer = timeout(QUERY, self.connection.rows(sql)).await;
        self.took = begun.elapsed();
        match answer {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => {
                let what = format!("the database did not answer within {} s", QUERY.as_secs());
                Err(StoreError::new(what, "see what keeps it busy; try again at night"))
            }
        }
    }
}

impl Connection {
    async fn open(url: &Url) -> Result<Self, StoreError> {
        match timeout(CONNECT, Self::connect(url)).await {
            Ok(connection) => connection,
            Err(_) => {
                let host = url.host_str().unwrap_or("the database");
                let what = format!("{host} did not answer within {} s", CONNECT.as_secs());
                Err(StoreError::new(what, "correct host and port in [cdr] source, or see its firewall"))
            }
        }
    }

    async fn connect(url: &Url) -> Result<Self, StoreError> {
        let wrong = |why: sqlx::Error| explain(&why);
        match url.scheme() {
            "mysql" => {
                let mut url = url.clone();
                if let Some(socket) = local_socket(&url) {
                    url.query_pairs_mut().append_pair("socket", socket);
                }
                // what a server says of zones, modes and names stays as it is
                let options = MySqlConnectOptions::from_url(&url)
                    .map_err(wrong)?
                    .timezone(None)
                    .pipes_as_concat(false)
                    .no_engine_substitution(false)
                    .disable_statement_logging();
                let mut connection = Self::MySql(Box::new(options.connect().await.map_err(wrong)?));
                // each is known to some servers only
                for setting in [
                    "TRANSACTION READ ONLY",
                    "max_statement_time = 5",
                    "max_execution_time = 5000",
                    "lock_wait_timeout = 5",
                ] {
                    let _ = connection.rows(&format!("SET SESSION {setting}")).await;
                }
                Ok(connection)
            }
            "postgres" => {
                let options = PgConnectOptions::from_url(url)
                    .map_err(wrong)?
                    .application_name("callpost")
                    .disable_statement_logging();
                let mut connection = Self::Postgres(Box::new(options.connect().await.map_err(wrong)?));
                for setting in
                    ["default_transaction_read_only = on", "statement_timeout = 5000", "lock_timeout = 2000"]
                {
                    connection.rows(&format!("SET {setting}")).await.map_err(wrong)?;
                }
                Ok(connection)
            }
            _ => {
                let path = Path::new(url.path());
                if let Err(why) = std::fs::File::open(path) {
                    let what = format!("cannot read {}: {why}", path.display());
                    return Err(StoreError::new(
                        what,
                        "correct [cdr] source, or let the user callpost read the file",
                    ));
                }
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .create_if_missing(false)
                    .busy_timeout(Duration::from_secs(2))
                    .disable_statement_logging();
                Ok(Self::Sqlite(Box::new(options.connect().await.map_err(wrong)?)))
            }
        }
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Texts>, sqlx::Error> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::MySql(connection) => {
                let rows = sql.fetch_all(&mut **connection).await?;
                rows.iter().map(|row| (0..row.len()).map(|n| row.try_get(n)).collect()).collect()
            }
            Self::Postgres(connection) => {
                let rows = sql.fetch_all(&mut **connection).await?;
                rows.iter().map(|row| (0..row.len()).map(|n| row.try_get(n)).collect()).collect()
            }
            Self::Sqlite(connection) => {
                let rows = sql.fetch_all(&mut **connection).await?;
                rows.iter()
                    .map(|row| {
                        let text = |n: usize| {
                            if row.try_get_raw(n)?.is_null() {
                                return Ok(None);
                            }
                            // Asterisk writes names as they came, UTF-8 or not
                            let bytes: Vec<u8> = row.try_get_unchecked(n)?;
                            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
                        };
                        (0..row.len()).map(text).collect()
                    })
                    .collect()
            }
        }
    }

    fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    fn quoted(&self, name: &str) -> String {
        match self {
            Self::MySql(_) => format!("`{}`", name.replace('`', "``")),
            Self::Postgres(_) | Self::Sqlite(_) => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// Whether the column's values are moments, whatever zone they are shown in.
    fn is_moment(&self, column: &Column) -> bool {
        matches!(self, Self::Postgres(_)) && column.kind == "timestamp with time zone"
    }

    /// A column as text, whatever its type.
    fn text_of(&self, column: &Column) -> String {
        let name = self.quoted(&column.name);
        match self {
            Self::MySql(_) => format!("CAST({name} AS CHAR)"),
            Self::Postgres(_) if self.is_moment(column) => {
                format!("({name} AT TIME ZONE 'UTC')::text")
            }
            Self::Postgres(_) => format!("{name}::text"),
            Self::Sqlite(_) => format!("CAST({name} AS BLOB)"),
        }
    }

    fn text_of_number(&self, quoted: &str) -> String {
        match self {
            Self::MySql(_) => format!("CAST({quoted} AS CHAR)"),
            Self::Postgres(_) => format!("{quoted}::text"),
            Self::Sqlite(_) => format!("CAST({quoted} AS BLOB)"),
        }
    }

    /// Two queries: name, type, whether it counts; the first column of each index. The configuration lets
    /// only letters, digits, `_`, `$` and `.` into a table's name.
    fn catalogue(&self, table: &str) -> [String; 2] {
        let (schema, name) =
            table.rsplit_once('.').map_or((None, table), |(schema, name)| (Some(schema), name));
        match self {
            Self::MySql(_) => {
                let schema = schema.map_or("DATABASE()".to_owned(), |schema| format!("'{schema}'"));
                let of = format!("TABLE_SCHEMA = {schema} AND TABLE_NAME = '{name}'");
                [
                    format!(
                        "SELECT CAST(COLUMN_NAME AS CHAR), CAST(DATA_TYPE AS CHAR), CAST(EXTRA LIKE '%auto_increment%' AS CHAR) \
                         FROM information_schema.COLUMNS WHERE {of} ORDER BY ORDINAL_POSITION"
                    ),
                    format!(
                        "SELECT DISTINCT CAST(COLUMN_NAME AS CHAR) FROM information_schema.STATISTICS \
                         WHERE {of} AND SEQ_IN_INDEX = 1 AND INDEX_TYPE = 'BTREE' AND SUB_PART IS NULL"
                    ),
                ]
            }
            Self::Postgres(_) => {
                let quoted: Vec<_> = table.split('.').map(|part| self.quoted(part)).collect();
                let of = format!("to_regclass('{}')", quoted.join("."));
                [
                    format!(
                        "SELECT a.attname::text, format_type(a.atttypid, NULL), \
                         CASE WHEN a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%' THEN '1' ELSE '0' END \
                         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                         WHERE a.attrelid = {of} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
                    ),
                    format!(
                        "SELECT a.attname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                         JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree' \
                         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                         WHERE i.indrelid = {of} AND i.indisvalid AND i.indpred IS NULL"
                    ),
                ]
            }
            Self::Sqlite(_) => [
                format!(
                    "SELECT CAST(name AS BLOB), CAST(type AS BLOB), \
                     CAST(pk = 1 AND upper(type) = 'INTEGER' AND (SELECT sum(pk > 0) FROM pragma_table_info('{name}')) = 1 AS BLOB) \
                     FROM pragma_table_info('{name}')"
                ),
                format!(
                    "SELECT DISTINCT CAST(i.name AS BLOB) FROM pragma_index_list('{name}') l, pragma_index_info(l.name) i \
                     WHERE i.seqno = 0 AND l.partial = 0"
                ),
            ],
        }
    }

    fn remedy_for_table(&self, table: &str) -> String {
        match self {
            Self::MySql(_) | Self::Postgres(_) => {
                format!(
                    "correct database and [cdr] table, or GRANT SELECT ON {table} to the user in [cdr] source"
                )
            }
            Self::Sqlite(_) => {
                "correct [cdr] source and table; cdr_sqlite3_custom.conf names both".to_owned()
            }
        }
    }

    fn remedy_for_columns(&self) -> &'static str {
        match self {
            Self::MySql(_) | Self::Postgres(_) => {
                "name the CDR table in [cdr] table, or add the column to it: Asterisk fills in what it finds"
            }
            Self::Sqlite(_) => {
                "add `calldate`, `src`, `dst` and `duration` to columns and values in cdr_sqlite3_custom.conf (the sample has no src and dst), and to the table"
            }
        }
    }
}

/// MySQL's socket on this host, where the URL says `localhost` and nothing else.
fn local_socket(url: &Url) -> Option<&'static str> {
    let local = url.host_str() == Some("localhost") && url.port().is_none();
    let asked = url.query_pairs().any(|(name, _)| name == "socket");
    SOCKETS.into_iter().find(|socket| local && !asked && Path::new(socket).exists())
}

/// What stands before the epoch in ids (`systemname-1795250000.7`); `None` where ids have no epoch.
fn system_name(sample: &[Cdr]) -> Option<String> {
    let named = |cdr: &Cdr| {
        let id = cdr.uniqueid.as_ref()?;
        let (secs, _) = id.epoch()?;
        let prefix = id.as_str().split(&format!("{secs:010}.")).next()?.to_owned();
        let safe = prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (secs >= 1_000_000_000 && safe).then_some(prefix)
    };
    if sample.is_empty() {
        return Some(String::new());
    }
    let names: Vec<_> = sample.iter().filter_map(named).collect();
    let first = names.first()?;
    names.iter().all(|name| name == first).then(|| first.clone())
}

/// A moment as the store's clock shows it, as if that were UTC.
fn position(at: Micros, clock: &TimeZone) -> i64 {
    let text = zone::local_text(at, clock).unwrap_or_default();
    zone::instant(&text, &TimeZone::UTC, None).map_or(0, Micros::secs)
}

/// The other way round.
fn instant(position: i64, clock: &TimeZone) -> Micros {
    let text = zone::local_text(Micros::from_secs(position), &TimeZone::UTC).unwrap_or_default();
    zone::instant(&text, clock, None).unwrap_or(Micros::from_secs(position))
}
