//! A store's records in order, whether they stand alone or in bundles. A record that stands alone
//! counts before one of the same key in a bundle.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::bundle::Bundle;
use super::engine::{Checked, Fault};
use super::format::{self, Damaged, key};

/// Bundles kept as they were read: deliveries of one time stand in a few of them.
const MOST_KEPT: usize = 16;

/// Bundles that were just read.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<(sled::IVec, Arc<Bundle>)>>);

impl Kept {
    /// A bundle's content.
    fn read(&self, key: &sled::IVec, record: &[u8]) -> Result<Arc<Bundle>, Damaged> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bundle)) = kept.iter().find(|(known, _)| known == key) {
            return Ok(Arc::clone(bundle));
        }
        let payload = format::unseal(key, record)?;
        let bundle = Bundle::read(payload).ok_or(Damaged("no bundle"))?;
        let bundle = Arc::new(bundle);
        if kept.len() >= MOST_KEPT {
            kept.pop_front();
        }
        kept.push_back((key.clone(), Arc::clone(&bundle)));
        Ok(bundle)
    }
}

/// The record under this key, where it is in a bundle.
pub(super) fn get(db: &sled::Db, kept: &Kept, key: &[u8]) -> Result<Option<Checked>, Fault> {
    let before = db.range(vec![key::BUNDLE]..=key::bundle(key)).next_back().transpose()?;
    let Some((place, record)) = before else { return Ok(None) };
    match kept.read(&place, &record) {
        Ok(bundle) => Ok(bundle.get(key).map(|payload| Ok(payload.to_vec()))),
        // it may have been in there
        Err(damage) => Ok(Some(Err(damage))),
    }
}

/// Records from one key (inclusive) to another (exclusive), in order or backwards, until `visit`
/// answers false.
pub(super) fn walk(
    db: &sled::Db,
    kept: &Kept,
    (from, to): (&[u8], &[u8]),
    back: bool,
    mut visit: impl FnMut(&[u8], Checked) -> bool,
) -> Result<(), Fault> {
    let mut alone = Alone { items: db.range(from..to), back };
    let mut bundled = Bundled::new(db, kept, (from, to), back)?;
    let (mut one, mut other) = (alone.next()?, bundled.next()?);
    loop {
        let order = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((one, _)), Some((other, _))) if back => other.cmp(one),
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        if order.is_le() {
            if let Some((key, checked)) = one.take()
                && !visit(&key, checked)
            {
                return Ok(());
            }
            one = alone.next()?;
        } else if let Some((key, checked)) = other.take()
            && !visit(&key, checked)
        {
            return Ok(());
        }
        if order.is_ge() {
            other = bundled.next()?;
        }
    }
}

type Item = Option<(Vec<u8>, Checked)>;

struct Alone {
    items: sled::Iter,
    back: bool,
}

impl Alone {
    fn next(&mut self) -> Result<Item, Fault> {
        loop {
            let item = if self.back { self.items.next_back() } else { self.items.next() };
            let Some((key, record)) = item.transpose()? else { return Ok(None) };
            if key.first() != Some(&key::BUNDLE) {
                let checked = format::unseal(&key, &record).map(<[u8]>::to_vec);
                return Ok(Some((key.to_vec(), checked)));
            }
        }
    }
}

struct Bundled<'a> {
    kept: &'a Kept,
    from: Vec<u8>,
    to: Vec<u8>,
    back: bool,
    bundles: sled::Iter,
    /// The one being read, and how many of its records were.
    now: Option<(Arc<Bundle>, usize)>,
}

impl<'a> Bundled<'a> {
    fn new(db: &sled::Db, kept: &'a Kept, (from, to): (&[u8], &[u8]), back: bool) -> Result<Self, Fault> {
        // the first one may begin before
        let before = db.range(vec![key::BUNDLE]..=key::bundle(from)).next_back().transpose()?;
        let first = before.map_or_else(|| vec![key::BUNDLE], |(key, _)| key.to_vec());
        let bundles = db.range(first..key::bundle(to));
        Ok(Self { kept, from: from.to_vec(), to: to.to_vec(), back, bundles, now: None })
    }

    fn next(&mut self) -> Result<Item, Fault> {
        loop {
            while let Some((bundle, read)) = &mut self.now {
                let place = if self.back { bundle.len().checked_sub(*read + 1) } else { Some(*read) };
                *read += 1;
                match place.and_then(|place| bundle.at(place)) {
                    Some((key, payload)) if self.from.as_slice() <= key && key < self.to.as_slice() => {
                        return Ok(Some((key.to_vec(), Ok(payload.to_vec()))));
                    }
                    Some(_) => {}
                    None => self.now = None,
                }
            }
            let next = if self.back { self.bundles.next_back() } else { self.bundles.next() };
            let Some((key, record)) = next.transpose()? else { return Ok(None) };
            match self.kept.read(&key, &record) {
                Ok(bundle) => self.now = Some((bundle, 0)),
                // said in the name of its first record, as far as that was asked for
                Err(damage) => return Ok(Some((self.from.as_slice().max(&key[1..]).to_vec(), Err(damage)))),
            }
        }
    }
}
