//! A CDR store that is open for reading: rows of a span of time, a page at a time, put into the PBX's zone.

use std::fmt;
use std::path::Path;

use jiff::tz::{Offset, TimeZone};
use parsers::{Cdr, Micros};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::columns::born;
use super::csv::Csv;
use super::sql::Sql;
use super::zone::{StoreClock, relocate, store_clock};
use crate::config::CdrStore;

/// What is wrong with a store, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    /// What is wrong: a fragment. No password, no URL.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl StoreError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// From a moment to another, which is not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub from: Micros,
    /// The end.
    pub to: Micros,
}

impl Span {
    /// Whether a moment is in it.
    pub fn has(self, at: Micros) -> bool {
        self.from <= at && at < self.to
    }
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As calls began.
    Start,
    /// As records were written: as calls ended.
    End,
}

/// Some rows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the store's order.
    pub rows: Vec<Cdr>,
    /// By start: every row that began before this has come.
    pub reached: Option<Micros>,
}

/// What a store turned out to be, for people.
#[derive(Clone, Debug)]
pub struct About {
    /// What is read.
    pub columns: Vec<String>,
    /// How rows are found.
    pub paging: String,
    /// What its times are in.
    pub clock: StoreClock,
    /// The same in words.
    pub zone: String,
    /// What is to be known: what, and what to do.
    pub warnings: Vec<(String, String)>,
}

/// An open store.
pub struct Store {
    kind: Kind,
    about: About,
    /// Of the store's times.
    zone: TimeZone,
    pbx: TimeZone,
}

enum Kind {
    Sql(Box<Sql>),
    Csv(Csv),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the configured store; `pbx` is `[pbx] timezone`.
    ///
    /// # Errors
    /// When it is away, locked, lacks what is needed, or cannot be read; with what to do.
    pub async fn open(config: &CdrStore, pbx: &TimeZone) -> Result<Self, StoreError> {
        let Some(source) = &config.source else {
            let remedy =
                "give source = \"mysql://...\", \"postgres://...\", \"sqlite:///...\" or \"csv:///...\"";
            return Err(StoreError::new("no [cdr] source is configured", remedy));
        };
        let url = source_url(source).map_err(|(what, remedy)| StoreError::new(what, remedy))?;
        let kind = if url.scheme() == "csv" {
            Kind::Csv(Csv::open(Path::new(url.path())).await?)
        } else {
            Kind::Sql(Box::new(Sql::open(&url, &config.table).await?))
        };
        Ok(Self::with_clock(kind, config.timezone.as_ref(), pbx))
    }

    fn with_clock(kind: Kind, configured: Option<&TimeZone>, pbx: &TimeZone) -> Self {
        let sample = match &kind {
            Kind::Sql(sql) => &sql.sample,
            Kind::Csv(csv) => &csv.sample,
        };
        let told = sample.iter().filter_map(|cdr| {
            let born = u64::try_from(born(cdr)?.secs()).ok()?;
            Some((cdr.start.as_deref()?, born))
        });
        let clock = store_clock(told, configured.unwrap_or(pbx));
        let moments = matches!(&kind, Kind::Sql(sql) if sql.has_moments());
        let mut warnings = Vec::new();
        let zone = match (configured, clock) {
            // whatever zone Asterisk writes in, the database has put it right
            (_, StoreClock::Utc | StoreClock::Unknown) if moments => TimeZone::UTC,
            (Some(zone), StoreClock::Local | StoreClock::Unknown) => zone.clone(),
            (Some(zone), StoreClock::Utc | StoreClock::Offset(_)) => {
                let what = "the times of the latest rows are not in [cdr] timezone, going by their uniqueids";
                warnings.push((
                    what.to_owned(),
                    "set timezone = \"auto\", or the zone that Asterisk writes in".to_owned(),
                ));
                zone.clone()
            }
            (None, StoreClock::Local) => pbx.clone(),
            (None, StoreClock::Utc) => TimeZone::UTC,
            (None, StoreClock::Offset(seconds)) => {
                let what =
                    format!("the store's times are {} from UTC, which is not [pbx] timezone", hours(seconds));
                warnings.push((what, "set [cdr] timezone, or correct [pbx] timezone".to_owned()));
                Offset::from_seconds(seconds).map_or_else(|_| pbx.clone(), Offset::to_time_zone)
            }
            (None, StoreClock::Unknown) => {
                if !sample.is_empty() {
                    let what = "nothing tells whether the store's times are local or UTC: local is assumed";
                    warnings.push((what.to_owned(), "set [cdr] timezone".to_owned()));
                }
                pbx.clone()
            }
        };
        let (columns, paging, advice) = match &kind {
            Kind::Sql(sql) => (sql.columns(), sql.paging(), sql.advice()),
            Kind::Csv(csv) => (Vec::new(), csv.paging(), None),
        };
        if let Some(advice) = advice {
            warnings.push((
                "no index finds rows by time: each day read is a scan of the whole table".to_owned(),
                advice,
            ));
        }
        let named = zone.iana_name().map_or_else(
            || match clock {
                StoreClock::Offset(seconds) => format!("UTC{}", hours(seconds)),
                StoreClock::Local | StoreClock::Utc | StoreClock::Unknown => "local time".to_owned(),
            },
            str::to_owned,
        );
        let about = About { columns, paging, clock, zone: named, warnings };
        Self { kind, about, zone, pbx: pbx.clone() }
    }

    /// What it turned out to be.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The order of its rows.
    pub fn order(&self) -> Order {
        match &self.kind {
            Kind::Sql(sql) => sql.order(),
            Kind::Csv(_) => Order::End,
        }
    }

    /// Starts over with the rows of this span; a few outside of it may come too.
    ///
    /// # Errors
    /// With what to do.
    pub async fn begin(&mut self, span: Span) -> Result<(), StoreError> {
        match &mut self.kind {
            Kind::Sql(sql) => sql.begin(span, &self.zone).await,
            Kind::Csv(csv) => csv.begin(span, &self.zone).await,
        }
    }

    /// The next page, in the PBX's zone; `None` at the end. Pauses as the store needs it.
    ///
    /// # Errors
    /// With what to do.
    pub async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        let page = match &mut self.kind {
            Kind::Sql(sql) => sql.next(&self.zone).await?,
            Kind::Csv(csv) => csv.next().await?,
        };
        let Some(mut page) = page else { return Ok(None) };
        page.rows.iter_mut().for_each(|cdr| relocate(cdr, &self.zone, &self.pbx));
        Ok(Some(page))
    }
}

/// `+05:30` of seconds.
fn hours(seconds: i32) -> String {
    let minutes = seconds.unsigned_abs() / 60;
    format!("{}{:02}:{:02}", if seconds < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
}

/// `[cdr] source`, of a scheme that can be read. The text is secret: an error does not repeat it.
pub(crate) fn source_url(source: &SecretString) -> Result<Url, (String, &'static str)> {
    const REMEDY: &str =
        "write mysql://USER:PASSWORD@HOST/DATABASE, postgres://..., sqlite:///PATH or csv:///PATH";
    let text = source.expose_secret();
    let text = match text.split_once("://") {
        Some(("mariadb", rest)) => format!("mysql://{rest}"),
        Some(("postgresql", rest)) => format!("postgres://{rest}"),
        _ => text.to_owned(),
    };
    let url = Url::parse(&text).map_err(|why| (format!("is not a URL: {why}"), REMEDY))?;
    match url.scheme() {
        "mysql" | "postgres" if url.path().trim_matches('/').is_empty() => {
            Err(("names no database".to_owned(), REMEDY))
        }
        "mysql" | "postgres" => Ok(url),
        "sqlite" | "csv" if url.has_host() || url.path().len() < 2 => {
            Err(("names no file: a path begins with the third slash".to_owned(), REMEDY))
        }
        "sqlite" | "csv" => Ok(url),
        other => Err((format!("{other} is not a kind of CDR store"), REMEDY)),
    }
}
