use super::*;

#[test]
fn digests_are_made_by_the_standard_functions() {
    let hash = |kind, bytes: &[u8]| {
        let mut hasher = Hasher::new(kind);
        hasher.update(bytes);
        hasher.finish()
    };
    assert_eq!(
        hash(HashKind::Sha256, b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        hash(HashKind::Blake3, b"abc").to_string(),
        "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    );
}

#[test]
fn where_the_data_lies_matters_and_zeros_cost_nothing() {
    let mut a = vec![0u8; 16 * 4096];
    let mut b = a.clone();
    assert_eq!(segment(HashKind::Blake3, &a, 4096), None);
    a[4096] = 1;
    b[8192] = 1;
    let (a, b) = (
        segment(HashKind::Blake3, &a, 4096),
        segment(HashKind::Blake3, &b, 4096),
    );
    assert!(a.is_some() && a != b, "moved leaf must change the digest");
}

#[test]
fn a_digest_follows_a_change_of_one_grain() {
    let leaf = 4096;
    for kind in [HashKind::Blake3, HashKind::Sha256] {
        let mut bytes: Vec<u8> = (0..10 * GRAIN_BYTES + 700)
            .map(|i| (i / 997) as u8)
            .collect();
        bytes[GRAIN_BYTES + leaf..GRAIN_BYTES + 2 * leaf].fill(0);
        let sum = |bytes: &[u8], first_leaf| {
            piece(kind, bytes, leaf, &nonzero_leaves(bytes, leaf), first_leaf)
        };
        // The third grain, zeros, and the last one, which is not whole.
        for (at, end) in [(2, 3), (4, 6), (10, 11)] {
            let range = at * GRAIN_BYTES..(end * GRAIN_BYTES).min(bytes.len());
            let first_leaf = range.start / leaf;
            let before = GrainSum::of(segment(kind, &bytes, leaf));
            let old = sum(&bytes[range.clone()], first_leaf);
            bytes[range.clone()].fill(at as u8 & 2);
            let new = sum(&bytes[range], first_leaf);
            assert_ne!(old, new);
            let after = before.plus(new.minus(old));
            assert_eq!(after.digest(), segment(kind, &bytes, leaf));
        }
        bytes.rotate_left(GRAIN_BYTES);
        let moved = segment(kind, &bytes, leaf);
        bytes.rotate_right(GRAIN_BYTES);
        assert_ne!(
            moved,
            segment(kind, &bytes, leaf),
            "grains that change places"
        );
    }
    let one = GrainSum([255; 32]);
    assert_eq!(one.plus(one).minus(one), one, "the lanes overflow");
    assert_eq!(one.minus(one).digest(), None);
}

#[test]
fn image_digest_covers_index_and_size() {
    let one = Some(Digest([1; 32]));
    let of = |index, size| {
        let mut d = ImageDigest::new(HashKind::Sha256, 4096, 1 << 20);
        d.add(0, None);
        d.add(index, one);
        d.finish(size)
    };
    assert_eq!(of(3, 10), of(3, 10));
    assert_ne!(of(3, 10), of(4, 10));
    assert_ne!(of(3, 10), of(3, 11));
}

#[test]
fn runs_join_neighbours() {
    let mut set = LeafSet::default();
    [0, 1, 2, 7, 8, 255].into_iter().for_each(|i| set.insert(i));
    assert_eq!(set.runs(), [(0, 3), (7, 2), (255, 1)]);
    assert_eq!(set.len(), 6);
}

#[test]
fn grains_are_cut_at_the_segments_end() {
    let leaf = 4096;
    let short = 2 * GRAIN_BYTES + leaf + 700;
    assert_eq!(GrainSet::all(short), GrainSet(0b111));
    assert_eq!(GrainSet::all(16 * GRAIN_BYTES), GrainSet(0xffff));
    assert_eq!(GrainSet::all(0), GrainSet(0));
    let mut set = GrainSet::default();
    set.insert_bytes(GRAIN_BYTES - 1..GRAIN_BYTES);
    set.insert_bytes(2 * GRAIN_BYTES..2 * GRAIN_BYTES + 1);
    assert_eq!(set, GrainSet(0b101));
    assert_eq!(set.places(short), [0..GRAIN_BYTES, 2 * GRAIN_BYTES..short]);
    assert_eq!(set.bytes(short), GRAIN_BYTES + leaf + 700);
    assert_eq!(set.leaves(leaf, short).runs(), [(0, 16), (32, 2)]);
    assert!(set.is_within(GrainSet::all(short)) && !GrainSet(0b1000).is_within(set));
    set.insert_bytes(5..2 * GRAIN_BYTES + 1);
    let place = set.places(short);
    assert_eq!(place.first(), Some(&(0..short)), "neighbours are one place");
    assert_eq!(GrainSet(0xffff).places(0), [], "nothing is past the end");
}
