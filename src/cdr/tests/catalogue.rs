//! `fixtures/cdr/catalogue.txt`: what each recorded call comes to.

use std::collections::{BTreeMap, BTreeSet};

use super::{CdrRow, Disposition, group, numbers, pbx, row};
use crate::cdr::{Part, fold};
use crate::config::Mode;

/// What NiMbox is to get: seconds after the earliest row, source, destination, duration, disposition.
type Create = (i64, String, String, u64, &'static str);

pub(super) struct Scenario {
    pub number: u32,
    pub rows: Vec<CdrRow>,
    creates: Vec<Create>,
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut dids: BTreeMap<String, String> = BTreeMap::new();
    for line in include_str!("../../../fixtures/cdr/catalogue.txt").lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "scenario" {
            let number = rest.split(' ').next().unwrap().parse().unwrap();
            scenarios.push(Scenario { number, rows: Vec::new(), creates: Vec::new() });
            dids.clear();
            continue;
        }
        let Some(scenario) = scenarios.last_mut() else { continue };
        match word {
            "did" => {
                let (id, did) = rest.split_once(' ').unwrap();
                dids.insert(id.to_owned(), did.to_owned());
            }
            "row" => {
                let mut row = row(rest);
                row.did =
                    dids.get(row.cdr.uniqueid.as_ref().unwrap().as_str()).map(|did| did.as_str().into());
                scenario.rows.push(row);
            }
            "create" => scenario.creates.push(create(rest)),
            _ => assert_eq!(line, "", "a line of another kind"),
        }
    }
    scenarios
}

fn create(text: &str) -> Create {
    let mut fields = text.splitn(5, ' ');
    let mut next = || fields.next().unwrap();
    let (at, source, destination) = (next().parse().unwrap(), next().to_owned(), next().to_owned());
    (at, source, destination, next().parse().unwrap(), Disposition::parse(next()).as_str())
}

/// What a route makes of the parts, `inbound_destination = "did"`.
fn creates(parts: &[Part], rows: &[CdrRow]) -> Vec<Create> {
    let first = rows.iter().filter_map(|row| row.cdr.start_epoch).min().unwrap().secs();
    let mut creates = Vec::new();
    for part in parts {
        let to = part.did.as_deref().or(part.destination.as_deref()).unwrap_or_default();
        let to = if part.outbound {
            numbers().apply(to).map(|to| to.into_owned())
        } else {
            numbers().accept(to).map(|()| to.to_owned())
        };
        let Ok(to) = to else { continue };
        let source = part.source.as_deref().unwrap_or("anonymous").to_owned();
        creates.push((part.start.secs() - first, source, to, part.duration, part.disposition.as_str()));
    }
    creates
}

fn by_linkedid(rows: &[CdrRow]) -> Vec<Vec<CdrRow>> {
    let mut groups: BTreeMap<_, Vec<CdrRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.cdr.linkedid.clone()).or_default().push(row.clone());
    }
    groups.into_values().collect()
}

#[test]
fn every_scenario_makes_the_creates_that_a_person_would_have_written_down() {
    let mut wrong = Vec::new();
    for Scenario { number, rows, creates: expected } in scenarios() {
        let whole = fold(&group(rows.clone()), Mode::PerCdr, &pbx());
        let got = creates(&whole.parts, &rows);
        if got != expected {
            wrong.push(format!("{number}: got {got:?}, expected {expected:?}; {:?}", whole.dropped));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn grouping_by_the_linkedid_column_makes_the_same_creates() {
    for Scenario { number, rows, creates: expected } in scenarios() {
        let parts =
            by_linkedid(&rows).into_iter().flat_map(|rows| fold(&group(rows), Mode::PerCdr, &pbx()).parts);
        let got: BTreeSet<_> = creates(&parts.collect::<Vec<_>>(), &rows).into_iter().collect();
        assert_eq!(got, expected.into_iter().collect(), "scenario {number}");
    }
}

#[test]
fn cdr_events_without_mappings_make_the_same_keys() {
    for Scenario { number, rows, creates: expected } in scenarios() {
        let mut bare = rows.clone();
        for row in &mut bare {
            let cdr = &mut row.cdr;
            (cdr.linkedid, cdr.sequence) = (None, None);
            (cdr.start_epoch, cdr.answer_epoch, cdr.end_epoch) = (None, None, None);
        }
        let got = creates(&fold(&group(bare), Mode::PerCdr, &pbx()).parts, &rows);
        let key = |create: &Create| (create.0, create.1.clone(), create.2.clone(), create.4);
        assert_eq!(
            got.iter().map(key).collect::<Vec<_>>(),
            expected.iter().map(key).collect::<Vec<_>>(),
            "{number}"
        );
        let apart = got.iter().zip(&expected).map(|(got, expected)| got.3.abs_diff(expected.3)).max();
        assert!(apart.unwrap_or(0) <= 2, "scenario {number}: durations {got:?}, expected {expected:?}");
    }
}

#[test]
fn a_table_with_did_but_without_linkedid_loses_no_answered_part_and_doubles_none() {
    for Scenario { number, rows, creates: expected } in scenarios() {
        let mut parties: BTreeMap<_, Vec<CdrRow>> = BTreeMap::new();
        for row in &rows {
            let mut row = row.clone();
            row.cdr.did = row.did.take();
            (row.cdr.linkedid, row.cdr.sequence) = (None, None);
            parties.entry(row.cdr.uniqueid.clone()).or_default().push(row);
        }
        let parts = parties.into_values().flat_map(|rows| fold(&group(rows), Mode::PerCdr, &pbx()).parts);
        let got: BTreeSet<_> = creates(&parts.collect::<Vec<_>>(), &rows).into_iter().collect();
        assert_eq!(got, expected.into_iter().collect(), "scenario {number}");
    }
}

#[test]
fn per_call_makes_at_most_one_create_of_a_call_and_one_wherever_per_cdr_makes_any() {
    for Scenario { number, rows, .. } in scenarios() {
        for rows in by_linkedid(&rows) {
            let parts = |mode| fold(&group(rows.clone()), mode, &pbx()).parts;
            let whole = parts(Mode::PerCall);
            assert_eq!(whole.len(), parts(Mode::PerCdr).len().min(1), "scenario {number}");
            assert!(whole.iter().all(|part| part.billsec <= part.duration), "scenario {number}: {whole:?}");
        }
    }
}

#[test]
fn per_call_spans_the_call() {
    // Number of a scenario; start, source, destination, duration.
    let table: [(u32, i64, &str, &str, u64); 7] = [
        (14, 0, "584141234567", "5551001", 8),
        (37, 0, "trunk", "5551000", 4),
        (39, 0, "1001", "2125551234", 4),
        (44, 0, "584141234567", "5551000", 4),
        (52, 0, "584141234567", "5552000", 4),
        (70, 0, "584141234567", "5551000", 7),
        (76, 0, "1001", "2125551234", 5),
    ];
    for (number, at, source, destination, duration) in table {
        let scenario = scenarios().into_iter().find(|scenario| scenario.number == number).unwrap();
        let got = creates(&fold(&group(scenario.rows.clone()), Mode::PerCall, &pbx()).parts, &scenario.rows);
        let expected = vec![(at, source.to_owned(), destination.to_owned(), duration, "ANSWERED")];
        assert_eq!(got, expected, "scenario {number}");
    }
}

#[test]
fn raw_keeps_every_key_of_the_rows_with_the_best_row() {
    for Scenario { number, rows, .. } in scenarios() {
        let folded = fold(&group(rows.clone()), Mode::Raw, &pbx());
        let key =
            |row: &CdrRow| (row.cdr.start_epoch.unwrap().secs(), row.cdr.src.clone(), row.cdr.dst.clone());
        let keys: BTreeSet<_> = rows.iter().map(key).collect();
        let made = |part: &Part| (part.start.secs(), part.source.clone(), part.destination.clone());
        assert_eq!(folded.parts.iter().map(made).collect::<BTreeSet<_>>(), keys, "scenario {number}");
        assert_eq!(folded.parts.len() + folded.dropped.len(), rows.len(), "scenario {number}");
        assert!(folded.parts.iter().all(|part| part.outbound && part.did.is_none()), "scenario {number}");
    }
}
