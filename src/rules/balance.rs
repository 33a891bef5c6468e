//! Which backend of an upstream takes the next request.
//!
//! The input is a ticket, counted by whoever forwards, and which backends may be asked, which
//! `state/health` knows. Connections and retries are left to `upstream` and `flow`.

/// Picks by round robin among the usable backends, given a ticket that grows by one a request.
/// `usable[i]` says whether backend `i` may be asked. `None` when none may.
///
/// The turn goes round the usable ones only, so the share of one that is down is spread over all
/// the others and not given to its neighbour.
pub fn round_robin(ticket: u64, usable: &[bool]) -> Option<usize> {
    let mut candidates = usable.iter().enumerate().filter(|(_, usable)| **usable);
    let count = u64::try_from(candidates.clone().count()).ok()?;
    let turn = usize::try_from(ticket.checked_rem(count)?).ok()?;
    candidates.nth(turn).map(|(backend, _)| backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picks(tickets: u64, usable: &[bool]) -> Vec<Option<usize>> {
        (0..tickets)
            .map(|ticket| round_robin(ticket, usable))
            .collect()
    }

    #[test]
    fn every_backend_takes_its_turn() {
        let turns = [Some(0), Some(1), Some(2), Some(0)];
        assert_eq!(picks(4, &[true, true, true]), turns);
    }

    #[test]
    fn one_that_is_down_is_passed_over() {
        let turns = [Some(0), Some(2), Some(0), Some(2)];
        assert_eq!(picks(4, &[true, false, true]), turns);
    }

    #[test]
    fn the_share_of_one_that_is_down_is_spread_evenly() {
        let picked = picks(300, &[false, true, true, true]);
        let share = picked.iter().filter(|pick| **pick == Some(1)).count();
        assert_eq!(share, 100);
    }

    #[test]
    fn a_single_backend_takes_all() {
        assert_eq!(picks(2, &[true]), [Some(0), Some(0)]);
    }

    #[test]
    fn nobody_is_picked_when_all_are_down() {
        assert_eq!(round_robin(7, &[false, false]), None);
    }

    #[test]
    fn nobody_is_picked_from_an_empty_upstream() {
        assert_eq!(round_robin(7, &[]), None);
    }

    proptest! {
        #[test]
        fn a_pick_is_always_usable(ticket: u64, usable in proptest::collection::vec(any::<bool>(), 0..9)) {
            match round_robin(ticket, &usable) {
                Some(pick) => prop_assert!(usable[pick]),
                None => prop_assert!(!usable.contains(&true)),
            }
        }
    }
}
