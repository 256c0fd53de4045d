//! What a demo comes to.

use serde::Serialize;

use crate::receiver::Counts;

/// The end of a demo.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Calls played.
    pub calls: u64,
    /// AMI events played.
    pub events: u64,
    /// Webhooks that arrived, different ones, test events left out.
    pub webhooks: u64,
    /// NiMbox creates that arrived, different ones.
    pub creates: u64,
    /// Deliveries accepted by the journal that neither arrived nor wait.
    pub lost: u64,
    /// Ids that came again with other content.
    pub conflicts: u64,
    /// Webhooks that overtook one of their own call.
    pub out_of_order: u64,
    /// Deliveries that still wait.
    pub pending: u64,
    /// Delivered at the start, left over from an earlier run.
    pub left_over: u64,
    /// Median time of a commit to disk, microseconds.
    pub commit_p50: u64,
    /// From an AMI event to its webhook's arrival, median, microseconds.
    pub latency_p50: Option<u64>,
    /// The 99th percentile.
    pub latency_p99: Option<u64>,
}

impl Summary {
    /// All arrived: nothing was lost, doubled or out of order, and nothing waits.
    pub fn is_clean(&self) -> bool {
        let arrived = self.webhooks > 0 && self.creates > 0;
        arrived && self.lost == 0 && self.conflicts == 0 && self.out_of_order == 0 && self.pending == 0
    }

    pub(super) fn count(&mut self, counts: Counts) {
        self.webhooks = counts.webhooks;
        self.creates = counts.creates;
        self.conflicts = counts.conflicts;
        self.out_of_order = counts.out_of_order;
    }
}

/// The value below which that share of the sorted values lies.
pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let index = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
    sorted.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[7], 99), Some(7));
        let many: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&many, 50), percentile(&many, 99)), (Some(100), Some(198)));
    }
}
