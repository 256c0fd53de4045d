//! Errors of the disk as the tests have them happen. Outside of tests there is nothing here.

/// What a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Opening,
    Reading,
    Writing,
    /// It was written, and what became of it is not known.
    Syncing,
}

/// Does nothing.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "as it is in tests")]
pub(super) const fn pass(_: &std::path::Path, _: Doing) -> Result<(), super::engine::Fault> {
    Ok(())
}

#[cfg(test)]
pub(super) use injected::{Injected, pass};

#[cfg(test)]
mod injected {
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex, PoisonError, RwLock};

    use super::Doing;
    use crate::journal::engine::Fault;

    /// Fails what stores under a directory do, as long as it says so.
    type Rule = Box<dyn FnMut(&Path, Doing) -> bool + Send>;

    static RULES: RwLock<Vec<(PathBuf, Arc<Mutex<Rule>>)>> = RwLock::new(Vec::new());

    /// A rule, while it is held.
    pub(in crate::journal) struct Injected(PathBuf);

    impl Injected {
        pub(in crate::journal) fn under(
            directory: &Path,
            rule: impl FnMut(&Path, Doing) -> bool + Send + 'static,
        ) -> Self {
            let mut rules = RULES.write().unwrap_or_else(PoisonError::into_inner);
            rules.push((directory.to_owned(), Arc::new(Mutex::new(Box::new(rule)))));
            Self(directory.to_owned())
        }
    }

    impl Drop for Injected {
        fn drop(&mut self) {
            RULES.write().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != self.0);
        }
    }

    /// Input/output error, where a rule says so.
    pub(in crate::journal) fn pass(store: &Path, doing: Doing) -> Result<(), Fault> {
        let rules = RULES.read().unwrap_or_else(PoisonError::into_inner);
        let Some((_, rule)) = rules.iter().find(|(of, _)| store.starts_with(of)) else { return Ok(()) };
        let mut rule = rule.lock().unwrap_or_else(PoisonError::into_inner);
        match rule(store, doing) {
            true => Err(std::io::Error::from_raw_os_error(5).into()),
            false => Ok(()),
        }
    }
}
