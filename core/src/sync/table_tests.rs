#![allow(clippy::unwrap_used)]
use super::*;

fn geometry() -> Geometry {
    Geometry::new(10 << 20, 4096).unwrap()
}

fn filled(path: &Path, point: Uuid) -> DigestTable {
    let table = DigestTable::create(path, HashKind::Blake3, geometry(), point).unwrap();
    for index in [0, 3, 9] {
        table.put(index, &Digest([index as u8 + 1; 32])).unwrap();
    }
    table
}

#[test]
fn the_image_digest_follows_from_the_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let table = filled(&path, Uuid::nil());
    let mut digest = ImageDigest::new(HashKind::Blake3, 4096, 1 << 20);
    for index in [0, 3, 9] {
        digest.add(index, Some(Digest([index as u8 + 1; 32])));
    }
    assert_eq!(table.image_digest().unwrap(), digest.finish(10 << 20));
    let again = DigestTable::open(&path, HashKind::Blake3, geometry()).unwrap();
    assert_eq!(
        again.unwrap().image_digest().unwrap(),
        table.image_digest().unwrap()
    );
}

#[test]
fn a_table_of_another_image_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let open = |hash, size| {
        let geometry = Geometry::new(size, 4096).unwrap();
        DigestTable::open(&path, hash, geometry).unwrap().is_some()
    };
    assert!(!open(HashKind::Blake3, 10 << 20), "there is none at all");
    filled(&path, Uuid::nil());
    assert!(open(HashKind::Blake3, 10 << 20));
    assert!(!open(HashKind::Sha256, 10 << 20));
    assert!(!open(HashKind::Blake3, (10 << 20) - 4096));
    std::fs::write(&path, "short").unwrap();
    assert!(!open(HashKind::Blake3, 10 << 20));
}

#[test]
fn a_sync_goes_on_only_at_the_same_point_in_time_and_from_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let (point, other) = (Uuid::new_v4(), Uuid::new_v4());
    filled(&path, point).set_cursor(4).unwrap();
    let resume = |point| DigestTable::resume(&path, HashKind::Blake3, geometry(), point);
    let (table, cursor) = resume(point).unwrap();
    assert_eq!(cursor, 4);
    let mut found = Vec::new();
    table
        .each(0, 10, |index, digest| found.extend(digest.map(|_| index)))
        .unwrap();
    assert_eq!(found, [0, 3], "what is behind the cursor does not count");
    drop(table);
    assert_eq!(resume(other).unwrap().1, 0);
    assert_eq!(resume(point).unwrap().1, 0, "it was made anew");
}
