//! Work done by several threads, its results taken in the order in which it was given out.

use std::collections::VecDeque;

/// Slots in order of issue, filled in any order, taken from the front once filled.
pub(super) struct InOrder<T> {
    first: u64,
    slots: VecDeque<Option<T>>,
}

impl<T> InOrder<T> {
    pub(super) fn new() -> Self {
        InOrder {
            first: 0,
            slots: VecDeque::new(),
        }
    }

    /// Opens the next slot and gives its ticket.
    pub(super) fn issue(&mut self) -> u64 {
        self.slots.push_back(None);
        self.first + self.slots.len() as u64 - 1
    }

    /// Fills the slot of `ticket`; false if there is no such open slot.
    pub(super) fn fill(&mut self, ticket: u64, value: T) -> bool {
        let slot = ticket
            .checked_sub(self.first)
            .and_then(|i| self.slots.get_mut(i as usize));
        match slot {
            Some(slot) if slot.is_none() => {
                *slot = Some(value);
                true
            }
            _ => false,
        }
    }

    /// Takes the oldest value if it is there.
    pub(super) fn take(&mut self) -> Option<T> {
        match self.slots.front() {
            Some(Some(_)) => {
                self.first += 1;
                self.slots.pop_front().flatten()
            }
            _ => None,
        }
    }

    /// Slots issued and not yet taken.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_order_of_issue() {
        let mut order = InOrder::new();
        let tickets: Vec<u64> = (0..4).map(|_| order.issue()).collect();
        assert!(order.fill(tickets[1], 'b'));
        assert_eq!(order.take(), None);
        assert!(order.fill(tickets[0], 'a'));
        assert!(!order.fill(tickets[0], 'x'), "a slot is filled once");
        assert_eq!(
            (order.take(), order.take(), order.take()),
            (Some('a'), Some('b'), None)
        );
        assert!(!order.fill(tickets[0], 'x'), "a taken slot is gone");
        assert_eq!(order.len(), 2);
    }
}
