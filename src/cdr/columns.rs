//! The columns of a CDR table, found by their names; and a row's texts as a [`Cdr`].

use std::sync::Arc;

use parsers::cdr::Disposition;
use parsers::{Cdr, ChannelName, Linkedid, Micros, Uniqueid};

use super::store::StoreError;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    Start,
    Src,
    Dst,
    Duration,
    Clid,
    Dcontext,
    Channel,
    Dstchannel,
    Lastapp,
    Lastdata,
    Answer,
    End,
    Billsec,
    Disposition,
    Accountcode,
    Uniqueid,
    Userfield,
    Did,
    Recordingfile,
    Linkedid,
    Peeraccount,
    Sequence,
}

/// Names of each, the usual first; `start` is aliased to `calldate` nearly everywhere.
const NAMES: [(Field, &[&str]); 22] = [
    (Field::Start, &["calldate", "start", "starttime", "start_time"]),
    (Field::Src, &["src", "source"]),
    (Field::Dst, &["dst", "destination"]),
    (Field::Duration, &["duration"]),
    (Field::Clid, &["clid"]),
    (Field::Dcontext, &["dcontext"]),
    (Field::Channel, &["channel"]),
    (Field::Dstchannel, &["dstchannel"]),
    (Field::Lastapp, &["lastapp"]),
    (Field::Lastdata, &["lastdata"]),
    (Field::Answer, &["answer"]),
    (Field::End, &["end"]),
    (Field::Billsec, &["billsec"]),
    (Field::Disposition, &["disposition"]),
    (Field::Accountcode, &["accountcode"]),
    (Field::Uniqueid, &["uniqueid"]),
    (Field::Userfield, &["userfield"]),
    (Field::Did, &["did"]),
    (Field::Recordingfile, &["recordingfile"]),
    (Field::Linkedid, &["linkedid"]),
    (Field::Peeraccount, &["peeraccount"]),
    (Field::Sequence, &["sequence"]),
];

/// Without these there is no create.
const REQUIRED: [Field; 4] = [Field::Start, Field::Src, Field::Dst, Field::Duration];

/// A column as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The store's own word, lower case: `datetime`, `character varying`.
    pub kind: String,
    /// The store numbers rows by it as they are inserted.
    pub counts: bool,
    /// An index begins with it.
    pub indexed: bool,
}

/// The columns that are read, in the order in which they are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub read: Vec<(Field, Column)>,
    /// The auto-increment column, if there is one.
    pub counter: Option<Column>,
}

impl Columns {
    /// Maps the columns of a table.
    ///
    /// # Errors
    /// When one that is needed is not there.
    pub fn discover(table: &str, columns: &[Column], remedy: &str) -> Result<Self, StoreError> {
        let find = |names: &[&str]| {
            let of = |name: &&str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
            names.iter().find_map(of).cloned()
        };
        let read: Vec<_> = NAMES.iter().filter_map(|(field, names)| Some((*field, find(names)?))).collect();
        let missing: Vec<_> = REQUIRED
            .iter()
            .filter(|required| !read.iter().any(|(field, _)| field == *required))
            .filter_map(|required| NAMES.iter().find(|(field, _)| field == required))
            .map(|(_, names)| names[..names.len().min(2)].join(" or "))
            .collect();
        if !missing.is_empty() {
            let there: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            let what = format!(
                "the table {table} has no column {}; it has {}",
                missing.join(", nor "),
                there.join(", ")
            );
            return Err(StoreError::new(what, remedy));
        }
        let counter = columns.iter().find(|column| column.counts && column.indexed).cloned();
        Ok(Self { read, counter })
    }

    pub fn get(&self, field: Field) -> Option<&Column> {
        self.read.iter().find(|(own, _)| *own == field).map(|(_, column)| column)
    }

    /// A row's texts in the order of [`Columns::read`].
    pub fn row(&self, texts: Vec<Option<String>>) -> Cdr {
        let mut builder = RowBuilder::default();
        for ((field, _), text) in self.read.iter().zip(texts) {
            builder.set(*field, text.as_deref().unwrap_or_default());
        }
        builder.finish()
    }
}

/// Fills in a [`Cdr`] from texts.
#[derive(Debug)]
pub(super) struct RowBuilder(Cdr);

impl Default for RowBuilder {
    fn default() -> Self {
        Self(Cdr {
            uniqueid: None,
            linkedid: None,
            sequence: None,
            src: None,
            dst: None,
            dcontext: None,
            clid: None,
            channel: None,
            dstchannel: None,
            lastapp: None,
            lastdata: None,
            start: None,
            answer: None,
            end: None,
            start_epoch: None,
            answer_epoch: None,
            end_epoch: None,
            duration: 0,
            billsec: 0,
            disposition: Disposition::Unknown,
            did: None,
            recordingfile: None,
            accountcode: None,
            peeraccount: None,
            userfield: None,
        })
    }
}

impl RowBuilder {
    /// An empty text is nothing; a number that is none is 0.
    pub fn set(&mut self, field: Field, text: &str) {
        let cdr = &mut self.0;
        let some = || (!text.is_empty()).then(|| Arc::<str>::from(text));
        // MySQL's zero date stands for what never was
        let time = || some().filter(|text| !text.starts_with("0000-"));
        match field {
            Field::Start => cdr.start = time(),
            Field::Answer => cdr.answer = time(),
            Field::End => cdr.end = time(),
            Field::Src => cdr.src = some(),
            Field::Dst => cdr.dst = some(),
            Field::Clid => cdr.clid = some(),
            Field::Dcontext => cdr.dcontext = some(),
            Field::Channel => cdr.channel = (!text.is_empty()).then(|| ChannelName::new(text)),
            Field::Dstchannel => cdr.dstchannel = (!text.is_empty()).then(|| ChannelName::new(text)),
            Field::Lastapp => cdr.lastapp = some(),
            Field::Lastdata => cdr.lastdata = some(),
            Field::Duration => cdr.duration = seconds(text),
            Field::Billsec => cdr.billsec = seconds(text),
            Field::Disposition => cdr.disposition = Disposition::parse(text),
            Field::Accountcode => cdr.accountcode = some(),
            Field::Uniqueid => cdr.uniqueid = (!text.is_empty()).then(|| Uniqueid::new(text)),
            Field::Linkedid => cdr.linkedid = (!text.is_empty()).then(|| Linkedid::new(text)),
            Field::Userfield => cdr.userfield = some(),
            Field::Did => cdr.did = some(),
            Field::Recordingfile => cdr.recordingfile = some(),
            Field::Peeraccount => cdr.peeraccount = some(),
            Field::Sequence => cdr.sequence = text.trim().parse().ok(),
        }
    }

    pub fn finish(self) -> Cdr {
        self.0
    }
}

/// `hrtime` writes fractions; Asterisk itself cuts them.
fn seconds(text: &str) -> u64 {
    text.trim().split('.').next().unwrap_or_default().parse().unwrap_or(0)
}

/// When the party A of a row was made, by its id; ids set by Originate or ARI tell nothing.
pub(super) fn born(cdr: &Cdr) -> Option<Micros> {
    let (secs, _) = cdr.uniqueid.as_ref()?.epoch()?;
    i64::try_from(secs).ok().map(Micros::from_secs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        let one = |name: &&str| Column {
            name: (*name).to_owned(),
            kind: "varchar".to_owned(),
            counts: *name == "id",
            indexed: *name == "id",
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn columns_are_found_by_name_whatever_their_order_and_case() {
        let columns =
            Columns::discover("cdr", &columns(&["id", "DST", "Src", "duration", "end", "CallDate", "x"]), "");
        let columns = columns.unwrap();
        let fields: Vec<_> =
            columns.read.iter().map(|(field, column)| (*field, column.name.as_str())).collect();
        let expected = [
            (Field::Start, "CallDate"),
            (Field::Src, "Src"),
            (Field::Dst, "DST"),
            (Field::Duration, "duration"),
            (Field::End, "end"),
        ];
        assert_eq!(fields, expected);
        assert_eq!(columns.counter.unwrap().name, "id");
    }

    #[test]
    fn a_table_that_lacks_a_column_is_told_which() {
        let error =
            Columns::discover("cdr", &columns(&["calldate", "clid", "duration"]), "add them").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the table cdr has no column src or source, nor dst or destination; it has calldate, clid, duration"
        );
    }

    #[test]
    fn odd_values_are_read_as_what_they_mean() {
        let mut row = RowBuilder::default();
        row.set(Field::Answer, "0000-00-00 00:00:00");
        row.set(Field::Duration, "12.987");
        row.set(Field::Billsec, "");
        row.set(Field::Disposition, "8");
        row.set(Field::Sequence, " 7");
        row.set(Field::Src, "");
        let cdr = row.finish();
        assert_eq!((cdr.answer, cdr.duration, cdr.billsec, cdr.src), (None, 12, 0, None));
        assert_eq!((cdr.disposition, cdr.sequence), (Disposition::Answered, Some(7)));
    }
}
