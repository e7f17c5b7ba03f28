//! Writes the seeds: `cargo run --manifest-path fuzz/Cargo.toml --example seeds` in the repository's top
//! directory, after a frame, a request or a recorded output has changed.

use rblocksync::digest::{Digest, GrainSet, GrainSum, HashKind, LeafSet};
use rblocksync::wire::{Delta, Entry, Extents, Frame, Grains, Held, Hello, Patch, Payload};
use rblocksync_fuzz::session::{encoded, Setup, RIGHT};
use std::path::Path;

type Written = std::io::Result<()>;

const OLD: Entry = Entry::Digest(RIGHT);
const OTHER: Entry = Entry::Digest(Digest([7; 32]));

fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Written {
    let dir = Path::new("fuzz/seeds").join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name), bytes)
}

fn leaves(which: impl IntoIterator<Item = usize>) -> LeafSet {
    let mut set = LeafSet::default();
    which.into_iter().for_each(|i| set.insert(i));
    set
}

fn patch(
    segment: u64,
    digest: Option<Digest>,
    changed: LeafSet,
    zeroed: LeafSet,
    leaf: usize,
) -> Frame {
    Frame::Patch(Patch {
        segment,
        digest,
        data: vec![9; changed.len() * leaf].into(),
        changed,
        zeroed,
    })
}

/// A change whose proof is put in where it is sent.
fn changed(segment: u64, changed: LeafSet, zeroed: LeafSet) -> Frame {
    Frame::Delta(Delta {
        shift: GrainSum([1; 32]),
        patch: Patch {
            segment,
            digest: Some(RIGHT),
            data: vec![9; changed.len() * 4096].into(),
            changed,
            zeroed,
        },
    })
}

/// The same with its bytes as one Zstandard frame: a header that names no size, and one block that repeats
/// one byte.
fn packed(patch: Frame) -> Frame {
    let Frame::Patch(mut patch) = patch else {
        return patch;
    };
    let head = (patch.data.packed_len() as u32) << 3 | 1 << 1 | 1;
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    bytes.extend_from_slice(&head.to_le_bytes()[..3]);
    bytes.push(9);
    patch.data = Payload::Zstd(bytes);
    Frame::Patch(patch)
}

fn extents(start: u64, end: u64, runs: &[(u64, u64)]) -> Frame {
    Frame::Extents(Extents {
        start,
        end,
        runs: runs.to_vec(),
    })
}

fn fingerprints(segment: u64, count: usize) -> Frame {
    Frame::Leaves {
        segment,
        present: leaves(0..count),
        fingerprints: vec![3; count],
    }
}

fn grains(list: &[(u64, u16)]) -> Frame {
    let entry = |&(segment, set): &(u64, u16)| Grains {
        segment,
        set: GrainSet(set),
    };
    Frame::Grains(list.iter().map(entry).collect())
}

/// What a target has in grains with these leaves; a sum of zeros stands for the one of what the source has.
fn held(segment: u64, sum: u8, present: LeafSet) -> Frame {
    Frame::Held(Held {
        segment,
        sum: GrainSum([sum; 32]),
        present,
        fingerprints: vec![3; present.len()],
    })
}

/// One frame of each type.
fn frames() -> Vec<(&'static str, Frame)> {
    vec![
        ("hello", Frame::Hello(Hello::ours("seed"))),
        (
            "error",
            Frame::Error(br#"{"kind":"space","message":"no room","advice":"make some"}"#.to_vec()),
        ),
        ("ping", Frame::Ping),
        ("request", Frame::Request(br#"{"block":"commit"}"#.to_vec())),
        ("reply", Frame::Reply(br#"{"done":null}"#.to_vec())),
        ("extents", extents(1, 400, &[(0, 2), (300, 1)])),
        (
            "segments",
            Frame::Segments(vec![Entry::Absent, Entry::Zero, OTHER]),
        ),
        ("want", Frame::Want(7)),
        ("leaves", fingerprints(7, 3)),
        ("same", Frame::Same(258)),
        (
            "patch",
            patch(7, Some(Digest([1; 32])), leaves([1]), leaves([8]), 64),
        ),
        ("patch-zeros", patch(7, None, leaves([]), leaves(0..256), 0)),
        (
            "patch-zstd",
            packed(patch(
                7,
                Some(Digest([1; 32])),
                leaves([1]),
                leaves([8]),
                4096,
            )),
        ),
        ("delta", changed(7, leaves([1]), leaves([8]))),
        ("grains", grains(&[(7, 0x8001), (300, 2)])),
        ("held", held(7, 1, leaves([1, 2]))),
        ("done", Frame::Done(RIGHT, b"{}".to_vec())),
        ("finished", Frame::Finished(RIGHT, b"{}".to_vec())),
    ]
}

fn stream(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(encoded).collect()
}

/// The same session with a map.
fn with_map(input: &mut [u8]) {
    input[0] |= 32;
}

fn sessions() -> Written {
    let done = || {
        Frame::Done(
            RIGHT,
            br#"{"compared":1,"changed":2,"zeroed":3,"side":{"read":4},"map":[]}"#.to_vec(),
        )
    };
    let finished = || Frame::Finished(RIGHT, br#"{"written":7,"map":[[1,0,0,0]]}"#.to_vec());
    let large = (2 << 20) + 100;
    let change = || patch(1, Some(RIGHT), leaves([1, 2]), leaves([3]), 4096);
    let empty = || patch(2, None, leaves([]), leaves([0]), 4096);
    for (name, dry_run, verify, size, frames) in [
        ("nothing", false, false, 0, vec![done()]),
        (
            "all-zeros",
            false,
            false,
            5000,
            vec![extents(0, 1, &[]), done()],
        ),
        (
            "same",
            false,
            false,
            large,
            vec![extents(0, 3, &[(0, 3)]), Frame::Same(3), done()],
        ),
        (
            "dry-run",
            true,
            false,
            large,
            vec![
                extents(0, 3, &[(0, 3)]),
                Frame::Want(1),
                Frame::Same(3),
                done(),
            ],
        ),
        (
            "changed",
            false,
            true,
            large,
            vec![
                extents(0, 1, &[(0, 1)]),
                extents(1, 3, &[(0, 2)]),
                Frame::Want(1),
                Frame::Same(1),
                change(),
                empty(),
                done(),
            ],
        ),
        (
            "compressed",
            false,
            true,
            large,
            vec![
                extents(0, 3, &[(1, 1)]),
                packed(patch(1, Some(RIGHT), leaves(0..32), leaves([]), 4096)),
                done(),
            ],
        ),
        (
            "hole",
            false,
            true,
            large,
            vec![extents(0, 3, &[(1, 1)]), change(), Frame::Ping, done()],
        ),
        (
            "wrong-digest",
            false,
            false,
            1 << 20,
            vec![
                extents(0, 1, &[(0, 1)]),
                patch(0, Some(Digest([1; 32])), leaves([0]), leaves([]), 4096),
            ],
        ),
    ] {
        let mut input = Setup::head(HashKind::Blake3, dry_run, verify, size).to_vec();
        input.extend(stream(&frames));
        write("session_target", name, &input)?;
        with_map(&mut input);
        write("session_target", &format!("{name}-map"), &input)?;
    }
    let small = leaves([0]);
    for (name, verify, frames) in [
        ("nothing", true, vec![done()]),
        ("one", false, vec![changed(1, small, leaves([])), done()]),
        (
            "two",
            false,
            vec![
                changed(0, small, leaves([3])),
                changed(2, leaves([]), small),
                done(),
            ],
        ),
        ("twice", false, vec![changed(1, small, leaves([])); 2]),
    ] {
        let mut input = Setup::head(HashKind::Blake3, false, verify, large).to_vec();
        input.extend(stream(&frames));
        write("session_changes", name, &input)?;
    }
    grain_sessions(large)?;
    for (name, dry_run, size, frames) in [
        ("nothing", false, 0, vec![finished()]),
        (
            "same",
            false,
            large,
            vec![Frame::Segments(vec![OLD; 3]), finished()],
        ),
        (
            "absent",
            false,
            70_000,
            vec![Frame::Segments(vec![Entry::Absent]), finished()],
        ),
        (
            "differs",
            false,
            large,
            vec![
                Frame::Segments(vec![OTHER, Entry::Zero, OTHER]),
                fingerprints(0, 200),
                fingerprints(2, 1),
                finished(),
            ],
        ),
        (
            "dry-run",
            true,
            5000,
            vec![Frame::Segments(vec![OTHER]), fingerprints(0, 2), finished()],
        ),
        (
            "error",
            false,
            5000,
            vec![Frame::Error(
                br#"{"kind":"io","message":"m","advice":null}"#.to_vec(),
            )],
        ),
    ] {
        let mut input = Setup::head(HashKind::Sha256, dry_run, false, size).to_vec();
        input.extend(stream(&frames));
        write("session_source", name, &input)?;
        with_map(&mut input);
        write("session_source", &format!("{name}-map"), &input)?;
    }
    let mut input = Setup::head(HashKind::Blake3, false, false, large).to_vec();
    input.extend(stream(&[
        extents(0, 3, &[(0, 3)]),
        Frame::Segments(vec![Entry::Absent, OTHER, Entry::Zero]),
        Frame::Want(1),
        fingerprints(1, 2),
        Frame::Same(1),
        change(),
        Frame::Same(1),
        done(),
        finished(),
    ]));
    write("session_relay", "whole", &input)?;
    with_map(&mut input);
    write("session_relay", "whole-map", &input)
}

/// Where only grains that may have changed are looked at: against the target's side, and against the source's.
fn grain_sessions(large: usize) -> Written {
    let done = || Frame::Done(RIGHT, b"{}".to_vec());
    let finished = || Frame::Finished(RIGHT, b"{}".to_vec());
    let all = || grains(&[(0, 1), (1, 0x8002), (2, 1)]);
    for (name, frames) in [
        ("target-nothing", vec![done()]),
        ("target-same", vec![all(), Frame::Same(3), done()]),
        (
            "target-changed",
            vec![
                all(),
                Frame::Same(1),
                patch(1, Some(RIGHT), leaves([17, 240]), leaves([16, 255]), 4096),
                Frame::Same(1),
                done(),
            ],
        ),
        (
            "target-whole",
            vec![
                grains(&[(1, 0xffff)]),
                patch(1, Some(RIGHT), leaves([]), leaves(0..256), 4096),
                done(),
            ],
        ),
        (
            "target-elsewhere",
            vec![
                grains(&[(1, 1)]),
                patch(1, Some(RIGHT), leaves([16]), leaves([]), 4096),
            ],
        ),
        ("target-twice", vec![all(), all()]),
    ] {
        let mut input = Setup::head(HashKind::Blake3, false, true, large).to_vec();
        input.extend(stream(&frames));
        write("session_grains", name, &input)?;
    }
    let held_all = |sums: [u8; 3]| {
        // Segment 1 is asked for as a whole.
        let mut frames: Vec<Frame> = (0..3)
            .map(|i| held(i, sums[i as usize], leaves([0])))
            .collect();
        frames.push(finished());
        frames
    };
    for (name, size, frames) in [
        ("source-nothing", 0, vec![finished()]),
        ("source-same", large, held_all([0; 3])),
        ("source-differs", large, held_all([1, 0, 1])),
        (
            "source-short",
            5000,
            vec![held(0, 1, leaves([0, 1])), finished()],
        ),
        ("source-elsewhere", large, vec![held(0, 1, leaves([100]))]),
        ("source-other", large, vec![held(1, 1, leaves([]))]),
    ] {
        let mut input = Setup::head(HashKind::Sha256, false, false, size).to_vec();
        input[0] |= 64;
        input.extend(stream(&frames));
        write("session_grains", name, &input)?;
    }
    Ok(())
}

fn texts() -> Written {
    for (name, json) in [
        (
            "open-source",
            r#"{"open-source":{"path":[47,120],"direct":false}}"#,
        ),
        (
            "open-target",
            r#"{"open-target":{"path":[47,121],"create":true,"dry_run":false,"direct":false}}"#,
        ),
        ("resize", r#"{"resize":1048576}"#),
        (
            "sync",
            r#"{"sync":["target",{"geometry":{"size":1048576,"leaf_bytes":4096},"hash":"blake3","dry_run":false,"verify":false,"bytes_per_s_max":null,"leaf_key":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"compress":"auto"}]}"#,
        ),
        (
            "params",
            r#"{"geometry":{"size":1048577,"leaf_bytes":4096},"hash":"sha256","dry_run":false,"verify":true,"bytes_per_s_max":1,"leaf_key":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"compress":{"level":3}}"#,
        ),
        (
            "error",
            r#"{"kind":"not-found","message":"x","advice":"y"}"#,
        ),
        ("stats", r#"{"read":1,"written":2,"zeroed":3,"verified":4}"#),
        (
            "opened",
            r#"{"size":1,"is_device":false,"is_new":true,"identity":null}"#,
        ),
        ("describe", r#"{"describe":{"keep":true}}"#),
        ("generations", r#"{"generations":"101"}"#),
        (
            "generation",
            r#"{"version":1,"pair":"67e55044-10b1-426f-9247-bb680e5fe0c8","epoch":1,"number":2,"parent":1,"taken_at":"2026-11-23T19:43:44Z","consistency":"crash","notes":[],"disks":[],"excluded":[],"config":"x"}"#,
        ),
    ] {
        write("requests", name, json)?;
    }
    let head = r#"<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="0">"#;
    let mappings = r#"<range_mapping origin_begin="0" data_begin="0" length="48" time="0"/><single_mapping origin_block="100" data_block="48" time="0"/>"#;
    let device = |id: u32, inner: &str| {
        format!(
            r#"<device dev_id="{id}" mapped_blocks="49" transaction="0" creation_time="0" snap_time="1">{inner}</device>"#
        )
    };
    write(
        "thin_dump",
        "v0.9",
        format!(
            "{head}\n{}{}</superblock>\n",
            device(1, mappings),
            device(2, mappings)
        ),
    )?;
    write(
        "thin_dump",
        "v1",
        format!(
            "{head}<def name=\"7\">{mappings}</def>{}</superblock>",
            device(1, r#"<ref name="7"/>"#)
        ),
    )?;
    write(
        "thin_delta",
        "v0.9",
        r#"<superblock uuid="" time="1" transaction="3" data_block_size="128" nr_data_blocks="1000">
  <diff left="1" right="2">
    <same begin="0" length="2"/>
    <different begin="2" length="2"/>
    <left_only begin="12" length="1"/>
    <right_only begin="30" length="1"/>
  </diff>
</superblock>
"#,
    )?;
    write(
        "lvs_json",
        "recorded",
        std::fs::read("core/src/lvm/testdata/lvs.json")?,
    )?;
    let greeting = r#"{"QMP":{"version":{},"capabilities":[]}}"#;
    write(
        "qmp",
        "monitor",
        format!(
            "0{greeting}\n{}\n{}\n{}\n{}\n",
            r#"{"return":{},"id":1}"#,
            r#"{"event":"STOP","timestamp":{}}"#,
            r#"{"return":{"running":true,"status":"running"},"id":2}"#,
            r#"{"error":{"class":"GenericError","desc":"no"},"id":3}"#,
        ),
    )?;
    write(
        "qmp",
        "agent",
        "1left over\n\x01{\"return\":@0}\n{\"return\":\"thawed\"}\n{\"return\":2}\n{\"error\":{\"desc\":\"no\"}}\n",
    )?;
    for entry in std::fs::read_dir("pve-plugin/tests/fixtures")? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match path.extension() {
            Some(e) if e == "conf" => write("vm_config", &name, std::fs::read(&path)?)?,
            _ => write("storage_cfg", &name, std::fs::read(&path)?)?,
        }
    }
    for (i, text) in [
        "101",
        "local-lvm:vm-101-disk-0",
        "local:101/vm-101-disk-0.qcow2",
        "local:100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2",
        "local-lvm:base-100-disk-0",
        "local:101/vm-101-cloudinit.qcow2",
        "local:iso/debian.iso,media=cdrom",
        "local-lvm:vm-101-disk-0,size=32G,iothread=1,replicate=0",
        "none,media=cdrom",
        "/dev/disk/by-id/x,backup=0",
    ]
    .into_iter()
    .enumerate()
    {
        write("volid", &format!("{i}"), text)?;
    }
    Ok(())
}

/// Headers of qcow2 images, with a small cluster so that they stay small.
fn qcow2() -> Written {
    let header = |fields: &[(usize, &[u8])]| {
        let mut bytes = vec![0; 512];
        let usual: [(usize, &[u8]); 6] = [
            (0, b"QFI\xfb"),
            (4, &3u32.to_be_bytes()),
            (20, &9u32.to_be_bytes()),
            (24, &(1u64 << 16).to_be_bytes()),
            (36, &2u32.to_be_bytes()),
            (100, &112u32.to_be_bytes()),
        ];
        for (at, field) in usual.iter().chain(fields) {
            bytes[*at..*at + field.len()].copy_from_slice(field);
        }
        bytes
    };
    let backed: [(usize, &[u8]); 6] = [
        (8, &400u64.to_be_bytes()),
        (16, &8u32.to_be_bytes()),
        (112, &0xe279_2acau32.to_be_bytes()),
        (116, &3u32.to_be_bytes()),
        (120, b"raw"),
        (400, b"base.raw"),
    ];
    let bitmaps: [(usize, &[u8]); 3] = [
        (112, &0x2385_2875u32.to_be_bytes()),
        (116, &24u32.to_be_bytes()),
        (120, &1u32.to_be_bytes()),
    ];
    write("qcow2_header", "plain", header(&[]))?;
    write("qcow2_header", "backed", header(&backed))?;
    write("qcow2_header", "bitmaps", header(&bitmaps))?;
    write(
        "qcow2_header",
        "old",
        header(&[(4, &2u32.to_be_bytes()), (72, &[0; 40])]),
    )?;
    write(
        "qcow2_header",
        "features",
        header(&[(72, &0x1fu64.to_be_bytes())]),
    )
}

/// A chunk of a structured reply; `done` if it is the last.
fn chunk(cookie: u64, done: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend(u16::from(done).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn simple(cookie: u64, errno: u32) -> Vec<u8> {
    let mut bytes = 0x6744_6698_u32.to_be_bytes().to_vec();
    bytes.extend(errno.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// What an NBD server says; the requests are those of the target.
fn nbd() -> Written {
    let numbers = |numbers: &[u32]| -> Vec<u8> {
        let bytes = numbers.iter().flat_map(|n| n.to_be_bytes());
        bytes.collect()
    };
    let replies = [
        chunk(1, false, 1, &[numbers(&[0, 2048]), vec![7; 1024]].concat()),
        chunk(5, false, 5, &numbers(&[1, 4096, 0, 65536, 3])),
        simple(3, 0),
        chunk(1, false, 2, &numbers(&[0, 3072, 1024])),
        chunk(1, true, 1, &[numbers(&[0, 0]), vec![8; 2048]].concat()),
        chunk(5, true, 5, &numbers(&[2, 8192, 1])),
        chunk(4, true, 0, &[]),
        chunk(2, false, 0x8002, b"\0\0\0\x05\0\x03bad\0\0\0\0\0\0\x08\0"),
        chunk(2, true, 0, &[]),
        chunk(6, true, 0x8001, b"\0\0\0\x1c\0\0"),
    ]
    .concat();
    write("nbd_reply", "replies", [&[3], &replies[..]].concat())?;
    let plain = [
        simple(2, 5),
        simple(1, 0),
        vec![7; 4096],
        simple(3, 0),
        simple(6, 28),
    ]
    .concat();
    write("nbd_reply", "simple", [&[1], &plain[..]].concat())?;
    // Has no extents.
    write(
        "nbd_reply",
        "status-simple",
        [&[1], &simple(5, 0)[..]].concat(),
    )?;
    let info = |size: u32| [b"\0\0".to_vec(), numbers(&[0, size]), b"\0\x4d".to_vec()].concat();
    let handshake = [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        option_reply(8, 1, &[]),
        option_reply(10, 4, b"\0\0\0\x01base:allocation"),
        option_reply(10, 4, b"\0\0\0\x02qemu:dirty-bitmap:b"),
        option_reply(10, 1, &[]),
        option_reply(7, 3, &info(1 << 20)),
        option_reply(7, 3, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"),
        option_reply(7, 1, &[]),
    ]
    .concat();
    write(
        "nbd_reply",
        "session",
        [&[0], &handshake[..], &replies].concat(),
    )?;
    let refused = [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        option_reply(8, 0x8000_0001, &[]),
        option_reply(7, 0x8000_0006, b"no such export"),
    ]
    .concat();
    write("nbd_reply", "refused", [&[0], &refused[..]].concat())
}

fn main() -> Written {
    nbd()?;
    for (name, frame) in frames() {
        let bytes = encoded(&frame);
        write("frame", name, &bytes[4..])?;
        let hello = encoded(&Frame::Hello(Hello::ours("seed")));
        write("handshake", name, [hello, bytes].concat())?;
    }
    sessions()?;
    qcow2()?;
    texts()
}
