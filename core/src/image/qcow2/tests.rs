use super::*;
use proptest::prelude::*;

/// A header as QEMU makes it for a disk of 6 MiB.
fn header() -> Vec<u8> {
    let mut bytes = vec![0; 65536];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &MAGIC);
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(6u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(100, &112u32.to_be_bytes());
    bytes
}

fn with(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = header();
    for (at, field) in changes {
        bytes[*at..*at + field.len()].copy_from_slice(field);
    }
    bytes
}

fn backed(name: &[u8], format: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = with(&[
        (8, &512u64.to_be_bytes()),
        (16, &(name.len() as u32).to_be_bytes()),
        (512, name),
    ]);
    if let Some(format) = format {
        bytes[112..116].copy_from_slice(&extension::BACKING_FORMAT.to_be_bytes());
        bytes[116..120].copy_from_slice(&(format.len() as u32).to_be_bytes());
        bytes[120..120 + format.len()].copy_from_slice(format);
    }
    bytes
}

#[test]
fn fields_are_where_the_specification_has_them() {
    let found = parse(&header()).unwrap();
    assert_eq!((found.version, found.virtual_size), (3, 6 << 20));
    assert_eq!((found.cluster_bits, found.backing), (16, None));
    parse(&header()).unwrap().check_usable().unwrap();
    let backing = |format: Option<&[u8]>| {
        parse(&backed(b"base.raw", format))
            .unwrap()
            .backing
            .unwrap()
    };
    assert_eq!(backing(None).format, None);
    assert_eq!(backing(Some(b"raw")).format.unwrap(), b"raw");
    assert_eq!(backing(Some(b"raw")).name, b"base.raw");
    // Version 2 has neither features nor a length.
    let old = with(&[(4, &2u32.to_be_bytes()), (72, &[0; 40])]);
    assert_eq!(parse(&old).unwrap().version, 2);
    let bitmaps = with(&[
        (112, &extension::BITMAPS.to_be_bytes()),
        (116, &24u32.to_be_bytes()),
        (120, &2u32.to_be_bytes()),
    ]);
    assert_eq!(parse(&bitmaps).unwrap().bitmaps, 2);
}

#[test]
fn what_cannot_be_is_refused() {
    let absurd: [(&str, Vec<u8>); 12] = [
        ("no qcow2", vec![0; 4096]),
        ("no qcow2", Vec::new()),
        ("cut off", header()[..60].to_vec()),
        ("version 4", with(&[(4, &4u32.to_be_bytes())])),
        ("clusters", with(&[(20, &22u32.to_be_bytes())])),
        ("clusters", with(&[(20, &0u32.to_be_bytes())])),
        ("length", with(&[(100, &96u32.to_be_bytes())])),
        ("length", with(&[(100, &(1u32 << 30).to_be_bytes())])),
        ("size of the disk", with(&[(24, &u64::MAX.to_be_bytes())])),
        (
            "size of the disk",
            with(&[(24, &(1u64 << 40).to_be_bytes())]),
        ),
        (
            "backing file",
            with(&[(8, &u64::MAX.to_be_bytes()), (16, &4u32.to_be_bytes())]),
        ),
        (
            "extension",
            with(&[(112, &7u32.to_be_bytes()), (116, &u32::MAX.to_be_bytes())]),
        ),
    ];
    for (words, bytes) in absurd {
        let error = parse(&bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.message().contains(words), "{words}: {error}");
    }
    for (words, bits) in [("corrupt", 2u64), ("data file", 4), ("unknown", 1 << 9)] {
        let found = parse(&with(&[(72, &bits.to_be_bytes())])).unwrap();
        let error = found.check_usable().unwrap_err();
        assert!(error.message().contains(words), "{words}: {error}");
    }
    let encrypted = parse(&with(&[(32, &2u32.to_be_bytes())])).unwrap();
    assert!(encrypted.check_usable().is_err());
    // Not closed properly: QEMU puts that right by itself.
    let dirty = parse(&with(&[(72, &1u64.to_be_bytes())])).unwrap();
    assert!(dirty.dirty && dirty.check_usable().is_ok());
}

proptest! {
    #[test]
    fn nothing_panics(changes in prop::collection::vec((0usize..1000, any::<u8>()), 0..40), len in 0usize..65536) {
        let mut bytes = backed(b"base", Some(b"raw"));
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(len);
        if let Ok(found) = parse(&bytes) {
            prop_assert!(found.virtual_size % 512 == 0 && found.virtual_size <= i64::MAX as u64);
            let _ = found.check_usable();
        }
    }
}

/// Chains made of plain files: no other program is needed to refuse one.
mod chains {
    use super::super::*;
    use super::backed;
    use crate::image::ImageFormat;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn put(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    fn dir() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    #[test]
    fn names_are_relative_to_who_names_them() {
        let dir = dir();
        dir.put("base,=.raw", b"raw");
        dir.put("mid", &backed(b"base,=.raw", Some(b"raw")));
        let top = dir.put("top", &backed(b"mid", Some(b"qcow2")));
        let (header, found) = chain(&top).unwrap();
        assert_eq!(header.virtual_size, 6 << 20);
        let names: Vec<_> = found
            .iter()
            .map(|e| e.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["top", "mid", "base,=.raw"]);
        assert_eq!(found[2].format, ImageFormat::Raw);
    }

    #[test]
    fn what_would_have_to_be_guessed_is_refused() {
        let dir = dir();
        dir.put("base", b"raw");
        let cases: [(&str, Vec<u8>); 6] = [
            ("without its format", backed(b"base", None)),
            ("cannot handle", backed(b"base", Some(b"vmdk"))),
            ("plain file", backed(b"nbd://localhost", Some(b"raw"))),
            ("plain file", backed(b"json:{}", Some(b"raw"))),
            ("no qcow2 image", backed(b"base", Some(b"qcow2"))),
            ("cannot find", backed(b"gone", Some(b"raw"))),
        ];
        for (words, bytes) in cases {
            let error = chain(&dir.put("top", &bytes)).unwrap_err();
            assert!(error.message().contains(words), "{words}: {error}");
        }
        let unnamed = chain(&dir.put("top", &backed(b"base", None))).unwrap_err();
        assert!(unnamed.advice().unwrap().contains("qemu-img rebase -u"));
        let loops = dir.put("loop", &backed(b"loop", Some(b"qcow2")));
        assert!(chain(&loops).unwrap_err().message().contains("without end"));
    }
}
