//! All directories change hands, and no purge is lost on the way.

use super::*;
use crate::flow::shelves::handover::Peer;
use tokio::sync::oneshot;

/// Another process, in this one: it heeds what it is told at once, or has ended.
#[derive(Debug)]
enum Other {
    Lives(Arc<Shelves>),
    Ended,
}

impl Peer for Other {
    fn tell(&self, _mark: Mark, selectors: &[Selector]) -> oneshot::Receiver<bool> {
        let (answer, told) = oneshot::channel();
        if let Self::Lives(shelves) = self {
            shelves.purge(Manner::Hard, selectors);
            answer.send(true).unwrap();
        }
        told
    }
}

#[test]
fn what_one_stored_the_next_serves_and_both_serve_it_for_a_while() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 3);
    let old = open(&dirs);
    for n in 0..30 {
        keep(&old, key(n), "body").unwrap();
    }
    let next = old.lend().unwrap();
    assert!(next > Sequence(30));
    let new = open(&dirs);
    new.count_from(next);
    assert!(new.next_sequence() >= next);
    for n in 0..30 {
        assert_eq!(served(&old, key(n)).as_deref(), Some("body"));
        assert_eq!(served(&new, key(n)).as_deref(), Some("body"));
    }
    assert!(keep(&old, key(99), "late").is_err());
    keep(&new, key(99), "late").unwrap();
    old.close();
    new.close();
}

#[test]
fn a_purge_at_one_holds_at_the_other() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let old = open(&dirs);
    keep(&old, key(1), "one").unwrap();
    keep(&old, key(2), "two").unwrap();
    old.lend().unwrap();
    let new = open(&dirs);
    old.stand_beside(Some(Beside::Heir(Arc::new(Other::Lives(Arc::clone(&new))))));
    new.stand_beside(Some(Beside::Elder(Arc::new(Other::Lives(Arc::clone(
        &old,
    ))))));
    assert!(purge(&old, &[key(1)]));
    assert!(purge(&new, &[key(2)]));
    for shelves in [&old, &new] {
        assert_eq!(served(shelves, key(1)), None);
        assert_eq!(served(shelves, key(2)), None);
        shelves.stand_beside(None);
        shelves.close();
    }
}

#[test]
fn a_purge_that_the_other_did_not_live_to_hear_is_written_when_the_stores_come_back() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let old = open(&dirs);
    let keys = [
        keys_of(&old, 0).next().unwrap(),
        keys_of(&old, 1).next().unwrap(),
    ];
    for key in keys {
        keep(&old, key, "body").unwrap();
    }
    old.stand_beside(Some(Beside::Heir(Arc::new(Other::Ended))));
    old.lend().unwrap();
    let purging = {
        let old = Arc::clone(&old);
        thread::spawn(move || purge(&old, &keys[..1]))
    };
    let new = open(&dirs);
    keep(&new, key(7), "of the other").unwrap();
    new.close();
    drop(new);
    assert!(old.take_back());
    assert!(purging.join().unwrap(), "it is durable");
    keep(&old, key(8), "after").unwrap();
    let after = old.next_sequence();
    old.close();
    drop(old);
    let again = open(&dirs);
    assert_eq!(served(&again, keys[0]), None);
    assert_eq!(served(&again, keys[1]).as_deref(), Some("body"));
    assert_eq!(served(&again, key(8)).as_deref(), Some("after"));
    assert!(
        after > Sequence(1 << 40),
        "the other's sequences are left out"
    );
    again.close();
}

#[test]
fn a_directory_in_trouble_keeps_all_from_changing_hands() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let old = open(&dirs);
    let faults = fail(&root.path().join("disk1"));
    for n in 0..20 {
        drop(keep(&old, key(n), "body"));
    }
    assert!(old.lend().is_err());
    faults.end();
    assert!(!old.is_lent());
    wait_until(&old, 0, true);
    wait_until(&old, 1, true);
    keep(&old, key(50), "stored").unwrap();
    assert!(matches!(try_open(&dirs), Err(StoreError::Locked { .. })));
    old.close();
}

#[test]
fn a_directory_that_is_out_is_begun_anew_by_the_next() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let old = open(&dirs);
    let keys = [
        keys_of(&old, 0).next().unwrap(),
        keys_of(&old, 1).next().unwrap(),
    ];
    for key in keys {
        keep(&old, key, "body").unwrap();
    }
    flush(&old);
    let faults = fail(&root.path().join("disk1"));
    assert!(purge(&old, &keys[1..]));
    wait_until(&old, 1, false);
    old.lend().unwrap();
    faults.end();
    let new = open(&dirs);
    assert_eq!(served(&new, keys[0]).as_deref(), Some("body"));
    assert_eq!(served(&new, keys[1]), None);
    old.close();
    new.close();
}
