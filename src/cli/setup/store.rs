//! The CDR store that this PBX writes, by Asterisk's own configuration of it. Its passwords are not read:
//! callpost gets an account of its own that may only read.

use std::path::Path;

use super::conf::{Conf, text_of};
use super::host::Host;
use super::scan::{Line, scan};
use crate::cli::exit::CliError;

const USER: &str = "callpost";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    MySql,
    Postgres,
    Sqlite,
    Csv,
}

/// A store and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub kind: Kind,
    pub host: String,
    pub port: Option<String>,
    /// A file's path where the store is one.
    pub database: String,
    pub table: String,
    /// The file that says so.
    pub by: String,
}

impl Found {
    /// Reading it needs an account of the database.
    pub fn needs_account(&self) -> bool {
        matches!(self.kind, Kind::MySql | Kind::Postgres)
    }

    /// As `[cdr] source` has it.
    pub fn source(&self, password: &str) -> String {
        let scheme = match self.kind {
            Kind::MySql => "mysql",
            Kind::Postgres => "postgres",
            Kind::Sqlite => return format!("sqlite://{}", self.database),
            Kind::Csv => return format!("csv://{}", self.database),
        };
        let port = self.port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{USER}:{password}@{}{port}/{}", self.host, self.database)
    }

    /// The statements that make the account, for whoever rules the database. Of one that is there
    /// already, from an earlier installation, the password is new; MySQL refuses it.
    pub fn grant(&self, password: &str) -> String {
        let Self { database, table, .. } = self;
        if self.kind == Kind::Postgres {
            return format!(
                "DO $$ BEGIN CREATE ROLE {USER}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n\
                 ALTER ROLE {USER} LOGIN PASSWORD '{password}';\nGRANT SELECT ON {table} TO {USER};\n"
            );
        }
        let from = if self.host == "localhost" { "localhost" } else { "%" };
        // a comment to MySQL and to MariaDB 5.5, which do not know it
        format!(
            "CREATE /*M!100103 OR REPLACE */ USER '{USER}'@'{from}' IDENTIFIED BY '{password}';\n\
             GRANT SELECT ON {database}.{table} TO '{USER}'@'{from}';\n"
        )
    }

    /// The command that runs the statements in a file.
    pub fn grant_command(&self, file: &str) -> String {
        let Self { database, host, .. } = self;
        match (self.kind, host.as_str()) {
            (Kind::Postgres, "localhost") => {
                format!("runuser -u postgres -- psql -v ON_ERROR_STOP=1 {database} <{file}")
            }
            (Kind::Postgres, host) => {
                format!("psql -v ON_ERROR_STOP=1 -h {host} -U postgres {database} <{file}")
            }
            (_, "localhost") => format!("mysql <{file}"),
            (_, host) => format!("mysql -h {host} -u root -p <{file}"),
        }
    }

    pub fn shown(&self) -> String {
        match self.kind {
            Kind::MySql => format!("MariaDB/MySQL {}.{} @ {}", self.database, self.table, self.host),
            Kind::Postgres => format!("PostgreSQL {}.{} @ {}", self.database, self.table, self.host),
            Kind::Sqlite => format!("SQLite {} ({})", self.database, self.table),
            Kind::Csv => self.database.clone(),
        }
    }
}

/// Every store there is, the best to read first.
pub(super) fn find(host: &Host) -> Result<Vec<Found>, CliError> {
    let mut found = Vec::new();
    found.extend(freepbx(host)?);
    found.extend(mysql(host)?);
    found.extend(odbc(host)?);
    found.extend(pgsql(host)?);
    found.extend(sqlite(host)?);
    found.extend(csv(host));
    let mut stores: Vec<Found> = Vec::new();
    for store in found {
        let same = |s: &Found| (s.kind, &s.database, &s.table) == (store.kind, &store.database, &store.table);
        if !stores.iter().any(same) {
            stores.push(store);
        }
    }
    Ok(stores)
}

/// `/etc/freepbx.conf`, `/etc/amportal.conf`: where the web interface keeps its database.
fn freepbx(host: &Host) -> Result<Option<Found>, CliError> {
    for name in ["etc/freepbx.conf", "etc/issabelpbx.conf", "etc/amportal.conf"] {
        let Some(text) = text_of(&host.root.join(name))? else { continue };
        let value = |key: &str| text.lines().rev().find_map(|line| php_value(line, key));
        let Some(server) = value("CDRDBHOST").or_else(|| value("AMPDBHOST")) else { continue };
        return Ok(Some(Found {
            kind: Kind::MySql,
            host: local(server),
            port: value("CDRDBPORT"),
            database: value("CDRDBNAME").unwrap_or_else(|| "asteriskcdrdb".to_owned()),
            table: value("CDRDBTABLENAME").unwrap_or_else(|| "cdr".to_owned()),
            by: format!("/{name}"),
        }));
    }
    Ok(None)
}

/// `$amp_conf['KEY'] = 'value';` or `KEY=value`.
fn php_value(line: &str, key: &str) -> Option<String> {
    let (left, right) = line.split_once('=')?;
    let left = left.trim().trim_start_matches("$amp_conf");
    if left.trim_matches(|c| matches!(c, '[' | ']' | '\'' | '"')) != key {
        return None;
    }
    let value = right.trim().trim_end_matches(';').trim().trim_matches(|c| matches!(c, '\'' | '"'));
    (!value.is_empty()).then(|| value.to_owned())
}

fn mysql(host: &Host) -> Result<Option<Found>, CliError> {
    let Some(conf) = host.conf("cdr_mysql.conf")? else { return Ok(None) };
    let value = |key: &str| conf.last("global", key).map(str::to_owned);
    let Some(database) = value("dbname") else { return Ok(None) };
    Ok(Some(Found {
        kind: Kind::MySql,
        host: local(value("hostname").unwrap_or_default()),
        port: value("port").filter(|port| port != "3306"),
        database,
        table: value("table").unwrap_or_else(|| "cdr".to_owned()),
        by: host.shown(&host.etc.join("cdr_mysql.conf")),
    }))
}

/// cdr_adaptive_odbc and cdr_odbc name a connection of res_odbc, that a source of odbc.ini.
fn odbc(host: &Host) -> Result<Option<Found>, CliError> {
    let Some(pools) = host.conf("res_odbc.conf")? else { return Ok(None) };
    let adaptive = host.conf("cdr_adaptive_odbc.conf")?.unwrap_or_default();
    let sections = adaptive.real().filter_map(|section| {
        let value = |key: &str| section.values.iter().rev().find(|v| v.key == key).map(|v| v.value.clone());
        Some((value("connection")?, value("table"), "cdr_adaptive_odbc.conf"))
    });
    let fixed = host.conf("cdr_odbc.conf")?.unwrap_or_default();
    let old = fixed
        .last("global", "dsn")
        .map(|dsn| (dsn.to_owned(), fixed.last("global", "table").map(str::to_owned), "cdr_odbc.conf"));
    for (pool, table, by) in sections.chain(old) {
        let off = pools.last(&pool, "enabled").is_some_and(|text| !super::conf::is_true(text));
        let Some(dsn) = pools.last(&pool, "dsn").filter(|_| !off) else { continue };
        let Some((kind, server, port, database)) = data_source(&host.root, dsn)? else { continue };
        let database = pools.last(&pool, "database").map(str::to_owned).or(database);
        let Some(database) = database else { continue };
        let table = table.unwrap_or_else(|| "cdr".to_owned());
        let by = host.shown(&host.etc.join(by));
        return Ok(Some(Found { kind, host: local(server), port, database, table, by }));
    }
    Ok(None)
}

type DataSource = (Kind, String, Option<String>, Option<String>);

fn data_source(root: &Path, dsn: &str) -> Result<Option<DataSource>, CliError> {
    let Some(text) = text_of(&root.join("etc/odbc.ini"))? else { return Ok(None) };
    let mut inside = false;
    let mut values = Vec::new();
    for line in scan(&text) {
        match line {
            Line::Header { name, .. } => inside = name.eq_ignore_ascii_case(dsn),
            Line::Value { key, value } if inside => values.push((key.to_lowercase(), value)),
            _ => {}
        }
    }
    let value = |keys: &[&str]| {
        let found = values.iter().find(|(key, value)| keys.contains(&key.as_str()) && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    let driver = value(&["driver"]).unwrap_or_default().to_lowercase();
    let kind = if driver.contains("maria") || driver.contains("my") {
        Kind::MySql
    } else if driver.contains("postgres") || driver.contains("psql") {
        Kind::Postgres
    } else {
        return Ok(None);
    };
    let port = value(&["port"]).filter(|port| !matches!(port.as_str(), "3306" | "5432"));
    Ok(Some((kind, value(&["server", "servername"]).unwrap_or_default(), port, value(&["database"]))))
}

fn pgsql(host: &Host) -> Result<Option<Found>, CliError> {
    let Some(conf) = host.conf("cdr_pgsql.conf")? else { return Ok(None) };
    let value = |key: &str| conf.last("global", key).map(str::to_owned);
    let Some(database) = value("dbname") else { return Ok(None) };
    Ok(Some(Found {
        kind: Kind::Postgres,
        host: local(value("hostname").unwrap_or_default()),
        port: value("port").filter(|port| port != "5432"),
        database,
        table: value("table").unwrap_or_else(|| "cdr".to_owned()),
        by: host.shown(&host.etc.join("cdr_pgsql.conf")),
    }))
}

/// Of cdr_sqlite3_custom; its sample writes neither src nor dst, and is of no use then.
fn sqlite(host: &Host) -> Result<Option<Found>, CliError> {
    let Some(conf) = host.conf("cdr_sqlite3_custom.conf")? else { return Ok(None) };
    let columns: Vec<_> =
        conf.last("master", "columns").unwrap_or_default().split(',').map(str::trim).collect();
    let file = host.logs.join("master.db");
    if !(columns.contains(&"src") && columns.contains(&"dst") && file.is_file()) {
        return Ok(None);
    }
    Ok(Some(Found {
        kind: Kind::Sqlite,
        host: String::new(),
        port: None,
        database: host.shown(&file),
        table: conf.last("master", "table").unwrap_or("cdr").to_owned(),
        by: host.shown(&host.etc.join("cdr_sqlite3_custom.conf")),
    }))
}

fn csv(host: &Host) -> Option<Found> {
    let file = host.logs.join("cdr-csv/Master.csv");
    let by = host.shown(&file);
    file.is_file().then(|| Found {
        kind: Kind::Csv,
        host: String::new(),
        port: None,
        database: by.clone(),
        table: "cdr".to_owned(),
        by,
    })
}

/// The ways to say "this host": at `localhost` databases take their sockets.
fn local(host: String) -> String {
    if matches!(host.as_str(), "" | "localhost" | "127.0.0.1" | "::1") {
        "localhost".to_owned()
    } else {
        host
    }
}

/// What `cdr.conf` does that makes callpost blind, late or both.
pub(super) fn general(host: &Host) -> Result<(bool, bool), CliError> {
    let conf: Conf = host.conf("cdr.conf")?.unwrap_or_default();
    Ok((conf.is_true("general", "enable") != Some(false), conf.is_true("general", "batch") == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_web_interfaces_are_read_in_both_forms() {
        assert_eq!(php_value("$amp_conf['AMPDBHOST'] = 'db1';", "AMPDBHOST").as_deref(), Some("db1"));
        assert_eq!(php_value("$amp_conf[\"AMPDBHOST\"]=\"db1\";", "AMPDBHOST").as_deref(), Some("db1"));
        assert_eq!(php_value("AMPDBHOST=localhost", "AMPDBHOST").as_deref(), Some("localhost"));
        assert_eq!(php_value("AMPDBHOSTS=x", "AMPDBHOST"), None);
        assert_eq!(php_value("AMPDBHOST=", "AMPDBHOST"), None);
    }

    #[test]
    fn an_account_may_only_read() {
        let found = |kind, host: &str| Found {
            kind,
            host: host.to_owned(),
            port: None,
            database: "asteriskcdrdb".to_owned(),
            table: "cdr".to_owned(),
            by: String::new(),
        };
        let maria = found(Kind::MySql, "localhost");
        assert_eq!(maria.source("pw"), "mysql://callpost:pw@localhost/asteriskcdrdb");
        assert_eq!(
            maria.grant("pw"),
            "CREATE /*M!100103 OR REPLACE */ USER 'callpost'@'localhost' IDENTIFIED BY 'pw';\nGRANT SELECT ON asteriskcdrdb.cdr TO 'callpost'@'localhost';\n"
        );
        assert!(found(Kind::MySql, "db1").grant("pw").contains("'callpost'@'%'"));
        assert!(found(Kind::Postgres, "localhost").grant("pw").contains("GRANT SELECT ON cdr TO callpost;"));
    }
}
