//! Nights on which the clock is set: a store in local time lacks an hour or has one twice. Whatever the
//! store and the index that rows are found by, each call is read once, with its own instant.

use std::fmt::Write as _;
use std::path::Path;

use callpost::cdr::{Span, Store, plan};
use callpost::config::{Config, Environment, load_text};
use callpost::journal::Payload;
use callpost::routes::Routes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parsers::Micros;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tempfile::TempDir;

/// A zone, the instant at which its clock was set, by how many seconds.
const NIGHTS: [(&str, &str, i64); 5] = [
    ("America/Santiago", "2024-04-07T03:00:00Z", -3600),
    ("America/Santiago", "2024-09-08T04:00:00Z", 3600),
    ("Europe/Madrid", "2025-10-26T01:00:00Z", -3600),
    ("Europe/Madrid", "2025-03-30T01:00:00Z", 3600),
    ("America/Caracas", "2016-05-01T07:00:00Z", 1800),
];
/// A call every so many seconds, three hours long on either side.
const STEP: i64 = 97;
const AROUND: i64 = 3 * 3600;

struct Night {
    zone: TimeZone,
    name: &'static str,
    /// When the clock was set.
    turn: i64,
}

impl Night {
    fn new((name, turn, by): (&'static str, &str, i64)) -> Self {
        let zone = TimeZone::get(name).unwrap();
        let turn = turn.parse::<Timestamp>().unwrap().as_second();
        let offset = |at: i64| i64::from(zone.to_offset(Timestamp::from_second(at).unwrap()).seconds());
        assert_eq!(offset(turn) - offset(turn - 1), by, "{name} was set by that");
        Self { zone, name, turn }
    }

    fn starts(&self) -> Vec<i64> {
        (self.turn - AROUND..self.turn + AROUND).step_by(usize::try_from(STEP).unwrap()).collect()
    }

    /// As Asterisk writes it: local, without a zone.
    fn local(&self, at: i64) -> String {
        let at = Timestamp::from_second(at).unwrap();
        self.zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    fn config(&self, source: &str) -> Config {
        let text = format!(
            "[pbx]\nname = 'hq'\ntimezone = '{}'\ntrunks = ['PJSIP/trunk']\n[cdr]\nsource = '{source}'\n\
             [[nimbox]]\nname = 'crm'\nurl = 'https://crm.example.com'\ntoken = 't'\ninitiated = 'utc-z'\n",
            self.name
        );
        load_text(&text, "test", &Environment::default()).unwrap().config
    }

    /// A table as `keys` has it, a row a call.
    async fn sqlite(&self, path: &Path, keys: &str) -> String {
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut admin = SqliteConnection::connect(&url).await.unwrap();
        let mut script = String::from(
            "BEGIN; CREATE TABLE cdr (calldate TEXT, clid TEXT, src TEXT, dst TEXT, channel TEXT, dstchannel TEXT, \
             duration INT, billsec INT, disposition TEXT, uniqueid TEXT, linkedid TEXT);",
        );
        script.push_str(keys);
        for (n, at) in self.starts().into_iter().enumerate() {
            let time = self.local(at);
            write!(
                script,
                "INSERT INTO cdr VALUES ('{time}', '', '1001', '555{n:07}', 'PJSIP/1001-{n:08x}', 'PJSIP/trunk-{n:08x}', \
                 42, 40, 'ANSWERED', '{at}.{n}', '{at}.{n}');"
            )
            .unwrap();
        }
        script.push_str("COMMIT;");
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut admin).await.unwrap();
        format!("sqlite://{}", path.display())
    }

    fn csv(&self, path: &Path, uniqueids: bool) -> String {
        let mut lines = String::new();
        for (n, at) in self.starts().into_iter().enumerate() {
            let (start, end) = (self.local(at), self.local(at + 42));
            write!(
                lines,
                "\"\",\"1001\",\"555{n:07}\",\"from-x\",\"\",\"PJSIP/1001-{n:08x}\",\"PJSIP/trunk-{n:08x}\",\"Dial\",\"\",\
                 \"{start}\",\"{start}\",\"{end}\",42,40,\"ANSWERED\",\"DOCUMENTATION\""
            )
            .unwrap();
            lines.push_str(&if uniqueids { format!(",\"{at}.{n}\",\"\"\n") } else { "\n".to_owned() });
        }
        std::fs::write(path, lines).unwrap();
        format!("csv://{}", path.display())
    }
}

/// The number dialled, which says which call it was, and the second that NiMbox is told.
async fn made(config: &Config, from: i64, to: i64) -> Vec<(usize, i64)> {
    let mut store = Store::open(&config.cdr, &config.pbx.timezone).await.unwrap();
    let span = Span { from: Micros::from_secs(from), to: Micros::from_secs(to) };
    let mut made = Vec::new();
    let take = |create: &callpost::journal::Outgoing| {
        let Payload::Nimbox { initiated, destination, .. } = &create.payload else { panic!() };
        let at = initiated.parse::<Timestamp>().unwrap().as_second();
        made.push((destination[3..].parse().unwrap(), at));
        Ok(())
    };
    plan(&mut store, span, "hq", &Routes::new(config), take).await.unwrap();
    made.sort_unstable();
    made
}

#[tokio::test]
async fn each_call_of_such_a_night_is_read_once_and_has_its_own_instant() {
    for night in NIGHTS.map(Night::new) {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let sources = [
            night.sqlite(&path("start"), "CREATE INDEX at ON cdr (calldate);").await,
            night.sqlite(&path("ids"), "CREATE INDEX ids ON cdr (uniqueid);").await,
            night.sqlite(&path("bare"), "").await,
            night.csv(&path("Master.csv"), true),
        ];
        let calls: Vec<(usize, i64)> = night.starts().into_iter().enumerate().collect();
        for source in &sources {
            let config = night.config(source);
            let all = made(&config, night.turn - AROUND, night.turn + AROUND).await;
            assert_eq!(all, calls, "{} {source}", night.name);
            // spans that begin and end within the hour that is there twice, or not at all
            for (from, to) in [(-3600, 0), (-1800, 1800), (0, 3600), (-10, 10), (1700, 1900)] {
                let (from, to) = (night.turn + from, night.turn + to);
                let part: Vec<_> = calls.iter().copied().filter(|(_, at)| (from..to).contains(at)).collect();
                assert_eq!(made(&config, from, to).await, part, "{} {source} {from}..{to}", night.name);
            }
        }
    }
}

/// Without uniqueids nobody can tell the first 02:30 from the second; but no call may be lost or doubled.
#[tokio::test]
async fn where_no_uniqueid_tells_the_hours_apart_each_call_is_still_read_once() {
    for night in NIGHTS.map(Night::new) {
        let directory = TempDir::new().unwrap();
        let config = night.config(&night.csv(&directory.path().join("Master.csv"), false));
        let all = made(&config, night.turn - 2 * AROUND, night.turn + 2 * AROUND).await;
        let starts = night.starts();
        assert_eq!(all.len(), starts.len(), "{}", night.name);
        for ((n, at), start) in all.iter().zip(&starts) {
            assert!((at - start).abs() <= 3600, "{} {n}: {at} for {start}", night.name);
            assert_eq!(night.local(*at), night.local(*start), "{} {n}: its local time stands", night.name);
        }
    }
}
