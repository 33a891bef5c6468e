//! A store that changes hands, and comes back when the other could not keep it.

use super::*;

/// Long enough for every disk that works.
const WAIT: Duration = Duration::from_secs(20);

#[test]
fn a_lent_store_has_everything_on_disk_and_another_can_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let body = bytes(1, 100);
    let put = store_one(&store, 1, &body);
    store.lend(WAIT).unwrap();
    assert!(store.is_lent());
    assert!(store.unlock());
    let (other, records) = open(dir.path());
    assert_eq!(puts(&records), std::slice::from_ref(&put));
    assert_eq!(store.read(body_at(&put)).unwrap(), body);
    assert_eq!(other.read(body_at(&put)).unwrap(), body);
}

#[test]
fn a_lent_store_writes_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    store.lend(WAIT).unwrap();
    let before = killed(dir.path());
    let pieces = [NewPiece::Head(bytes(2, 100))];
    let refused = store.append(None, Sequence(2), KEY, &pieces);
    assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    assert!(!store.drop_pack(put.head.pack));
    store.record_remove(Sequence(1));
    assert!(wait(store.record_purge(hard(3), &[Selector::All])).is_err());
    assert!(store.snapshot(&mut Vec::new).is_err());
    store.tick();
    assert!(wait(store.flush()).is_err());
    drop(store);
    let contents = |dir: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| {
            let bytes = fs::read(&path).unwrap();
            (path.strip_prefix(dir).unwrap().to_path_buf(), bytes)
        };
        files(dir).into_iter().map(read).collect()
    };
    assert_eq!(contents(dir.path()), contents(before.path()));
}

#[test]
fn a_store_that_is_taken_back_goes_on_and_writes_what_came_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let kept = store_one(&store, 1, &bytes(1, 100));
    store.lend(WAIT).unwrap();
    assert!(store.unlock());
    drop(open(dir.path()));
    assert!(wait(store.record_purge(hard(2), &[Selector::Url(OTHER)])).is_err());
    assert!(store.take_back());
    let more = store_one(&store, 3, &bytes(3, 100));
    assert!(store.wants_snapshot());
    drop(store);
    let (_, records) = open(dir.path());
    assert_eq!(puts(&records), [kept, more]);
    let purge = Record::Purge {
        mark: hard(2),
        selector: Selector::Url(OTHER),
    };
    assert!(records.contains(&purge));
}

#[test]
fn what_another_deleted_is_lost_and_what_it_left_is_deleted_when_a_store_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keeper) = started(dir.path());
    let (one, body) = (store_one(&store, 1, &bytes(1, 100)), bytes(2, 100));
    wait(store.flush()).unwrap();
    let two = store_one(&store, 2, &body);
    store.lend(WAIT).unwrap();
    assert!(store.hold(two.head.pack));
    assert!(store.unlock());
    {
        let (other, _) = started(dir.path());
        assert!(other.drop_pack(one.head.pack));
        assert!(other.drop_pack(two.head.pack));
        store_one(&other, 3, &bytes(3, 100));
    }
    assert!(matches!(
        store.read(body_at(&one)),
        Err(StoreError::Missing(_))
    ));
    assert_eq!(store.read(body_at(&two)).unwrap(), body, "it was held open");
    assert!(store.take_back());
    let both = [one.head.pack, two.head.pack];
    keeper.wait_until(|_, lost| lost.len() == 2 && both.iter().all(|pack| lost.contains(pack)));
    assert_eq!(store.packs(), []);
    assert_eq!(files(&dir.path().join("content-v2")), Vec::<PathBuf>::new());
    let next = store_one(&store, 4, &bytes(4, 100));
    assert!(next.head.pack.0 > two.head.pack.0 + 1000, "{next:?}");
}

#[test]
fn a_store_that_another_keeps_does_not_come_back_until_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    store.lend(WAIT).unwrap();
    assert!(store.unlock());
    let other = open(dir.path());
    assert!(!store.take_back());
    assert!(matches!(store.condition(), Condition::PassThrough(_)));
    drop(other);
    wait_for(|| store.condition() == Condition::Healthy);
    assert!(store.read(body_at(&put)).is_ok());
}

#[test]
fn a_store_in_trouble_is_not_lent() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("store");
    let (store, _) = started(&inner);
    fs::remove_dir_all(&inner).unwrap();
    fs::write(&inner, b"in the way").unwrap();
    store.tick();
    assert!(store.lend(WAIT).is_err());
    assert!(!store.is_lent());
    assert!(store.abandon(WAIT));
    assert!(store.is_lent());
    fs::remove_file(&inner).unwrap();
    store.tick();
    assert!(!inner.exists(), "it is left to whoever comes next");
    assert!(store.unlock());
    let other = open(&inner);
    assert!(!store.take_back());
    drop(other);
    wait_for(|| store.condition() == Condition::Healthy);
}

/// A key that nothing in these tests has.
const OTHER: PrimaryKey = PrimaryKey([9; 16]);
