//! The check must let every true moment pass and tell every other content.

use super::*;
use std::io::Cursor;

/// The region of each of `disks` disks after the writes 1..=`writes`, done as pattern.S does them.
fn written(disks: usize, writes: u32) -> Vec<Vec<u8>> {
    let mut regions = vec![vec![0; (SLOTS * SLOT) as usize]; disks];
    for number in 1..=writes {
        put(&mut regions, number);
    }
    regions
}

fn put(regions: &mut [Vec<u8>], number: u32) {
    let n = regions.len() as u32;
    let slot = ((number - 1) / n) as usize % SLOTS as usize;
    let region = &mut regions[((number - 1) % n) as usize];
    fill(
        &mut region[slot * SLOT as usize..(slot + 1) * SLOT as usize],
        number,
    );
}

fn fill(bytes: &mut [u8], number: u32) {
    for unit in bytes.chunks_mut(8) {
        unit[..4].copy_from_slice(&number.to_le_bytes());
        unit[4..].copy_from_slice(&(number ^ MAGIC).to_le_bytes());
    }
}

fn slot(region: &mut [u8], slot: usize) -> &mut [u8] {
    &mut region[slot * SLOT as usize..(slot + 1) * SLOT as usize]
}

#[test]
fn every_prefix_of_the_writes_is_clean() {
    for disks in [1, 2, 3] {
        for writes in [0, 1, 2, 3, 511, 512, 513, 1023, 1024, 1025, 1026, 5000] {
            let report = check_regions(&written(disks, writes)).unwrap();
            assert_eq!(report.writes, writes, "{disks} disks");
            assert_eq!(report.newest.len(), disks);
        }
    }
    assert_eq!(check_regions(&written(2, 5)).unwrap().newest, [5, 4]);
}

#[test]
fn the_region_is_found_in_whole_images() {
    let images = written(2, 77).into_iter().map(|region| {
        let mut image = vec![0xaa; REGION.start as usize];
        image.extend(region);
        image.extend([0xbb; 100]);
        Cursor::new(image)
    });
    let mut images: Vec<_> = images.collect();
    assert_eq!(check(&mut images).unwrap().writes, 77);
    images[1].get_mut().truncate(REGION.end as usize - 1);
    assert!(matches!(
        check(&mut images).unwrap_err()[..],
        [Violation::Unreadable { disk: 1, .. }]
    ));
}

#[test]
fn a_slot_of_two_writes_is_torn_wherever_the_seam_is() {
    for seam in [512, 2048, 3584, 8, 4088] {
        let mut regions = written(2, 3000);
        fill(&mut slot(&mut regions[1], 9)[seam..], 20);
        assert_eq!(
            check_regions(&regions).unwrap_err(),
            [Violation::Torn { disk: 1, slot: 9 }],
            "{seam}"
        );
    }
}

#[test]
fn a_half_empty_slot_and_a_flipped_bit_are_torn() {
    let mut regions = written(2, 700);
    slot(&mut regions[0], 0)[512..].fill(0);
    slot(&mut regions[0], 1)[..512].fill(0);
    slot(&mut regions[1], 2)[4095] ^= 1;
    let torn = |disk, slot| Violation::Torn { disk, slot };
    assert_eq!(
        check_regions(&regions).unwrap_err(),
        [torn(0, 0), torn(0, 1), torn(1, 2)]
    );
}

#[test]
fn a_lost_write_is_missing_in_first_and_later_rounds() {
    let mut regions = written(2, 100);
    slot(&mut regions[0], 10).fill(0);
    let missing = |disk, slot, expected, found| Violation::Missing {
        disk,
        slot,
        expected,
        found,
    };
    assert_eq!(
        check_regions(&regions).unwrap_err(),
        [missing(0, 10, 21, 0)]
    );

    let mut regions = written(2, 3000);
    let last = 21 + 4 * SLOTS as u32;
    fill(slot(&mut regions[0], 10), 21);
    assert_eq!(
        check_regions(&regions).unwrap_err(),
        [missing(0, 10, last, 21)]
    );
}

#[test]
fn a_write_seen_before_its_predecessor_on_the_same_disk_is_found() {
    let mut regions = written(2, 200);
    put(&mut regions, 203); // without 201
    let found = check_regions(&regions).unwrap_err();
    let missing = Violation::Missing {
        disk: 0,
        slot: 100,
        expected: 201,
        found: 0,
    };
    assert!(found.contains(&missing), "{found:?}");
}

#[test]
fn disks_of_different_moments_are_found_even_one_write_apart() {
    let (early, late) = (written(2, 2000), written(2, 2002));
    let mixed = [early[0].clone(), late[1].clone()];
    let behind = Violation::Behind {
        disk: 0,
        expected: 2001,
        newest: 1999,
    };
    assert_eq!(check_regions(&mixed).unwrap_err(), [behind]);
    let mixed = [late[0].clone(), early[1].clone()];
    assert_eq!(
        check_regions(&mixed).unwrap().writes,
        2001,
        "1..=2001 is a true moment"
    );
    let later = written(2, 2003);
    let behind = Violation::Behind {
        disk: 1,
        expected: 2002,
        newest: 2000,
    };
    assert_eq!(
        check_regions(&[later[0].clone(), early[1].clone()]).unwrap_err(),
        [behind]
    );
}

#[test]
fn a_stale_disk_is_behind_and_swapped_disks_are_misplaced() {
    let regions = [
        written(2, 9000)[0].clone(),
        vec![0; (SLOTS * SLOT) as usize],
    ];
    let behind = Violation::Behind {
        disk: 1,
        expected: 8998,
        newest: 0,
    };
    assert_eq!(check_regions(&regions).unwrap_err(), [behind]);
    let mut swapped = written(2, 40);
    swapped.swap(0, 1);
    let found = check_regions(&swapped).unwrap_err();
    let misplaced = Violation::Misplaced {
        disk: 0,
        slot: 0,
        found: 2,
    };
    assert!(found.contains(&misplaced), "{found:?}");
}

#[test]
fn a_write_in_the_wrong_slot_is_misplaced() {
    let mut regions = written(2, 40);
    fill(slot(&mut regions[0], 300), 39);
    let misplaced = Violation::Misplaced {
        disk: 0,
        slot: 300,
        found: 39,
    };
    assert_eq!(check_regions(&regions).unwrap_err(), [misplaced]);
}
