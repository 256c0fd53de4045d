//! The CDR store: whether it can be read, and how it would be.

use std::io;

use super::report::Report;
use crate::cdr::{Store, StoreClock};
use crate::config::Config;

const SUBJECT: &str = "CDR store";

pub(super) async fn check(config: &Config, report: &mut Report) -> io::Result<()> {
    if config.cdr.source.is_none() {
        return Ok(());
    }
    let store = match Store::open(&config.cdr, &config.pbx.timezone).await {
        Ok(store) => store,
        Err(why) => return report.bad(SUBJECT, why.what, why.remedy),
    };
    let about = store.about();
    report.ok(SUBJECT, format!("it can be read; rows are found by {}", about.paging))?;
    if !about.columns.is_empty() {
        report.ok(SUBJECT, format!("columns: {}", about.columns.join(", ")))?;
    }
    if about.clock != StoreClock::Unknown {
        report.ok(SUBJECT, format!("its times are in {}, by the ids of its latest rows", about.zone))?;
    }
    for (what, remedy) in &about.warnings {
        report.warning(SUBJECT, what, remedy)?;
    }
    Ok(())
}
