//! The storage configuration: what was understood, written down again, is understood as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pvesync::storage_cfg::{StorageCfg, StorageEntry};

fn print(entry: &StorageEntry) -> String {
    // The storage `local` that is there without being written down; written, it would hold less.
    if entry.properties.is_empty() && entry.content.len() > 2 {
        return String::new();
    }
    let mut text = format!("{}: {}\n", entry.kind(), entry.id);
    for (key, value) in &entry.properties {
        text.push_str(&format!("\t{key} {value}\n"));
    }
    text + "\n"
}

fuzz_target!(|text: &str| {
    let cfg = StorageCfg::parse(text);
    let printed: String = cfg.entries().iter().map(print).collect();
    assert_eq!(StorageCfg::parse(&printed).entries(), cfg.entries());
    for entry in cfg.entries() {
        assert_eq!(cfg.get(&entry.id), Some(entry));
        let _ = cfg.usable(&entry.id, "node");
    }
});
