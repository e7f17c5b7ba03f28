//! What a change of roles does to a VM's configuration: a replica's becomes the VM's own, and the VM's is put aside so
//! that nobody starts it by accident.
//!
//! Both change single lines of what is there, and can be told from each other and from a standby replica by a line of
//! the description.

use crate::config_text::ConfigText;
use crate::guard;
use crate::replica_config::{mark_of, GUARD_LOCK, OUR_LINE, PAIR_MARK, TAG, WAS_PAIR_MARK};
use crate::vm_config::VmConfig;
use rblocksync::replica::{Generation, TargetPair};
use uuid::Uuid;

/// The tag of a VM that has gone to another host.
pub const RETIRED_TAG: &str = "rblocksync-retired";
/// What stands before the reason in the description of such a VM.
const RETIRED_MARK: &str = "rblocksync-retired:";
/// The same of a VM that is locked by us as long as it is not known whether this host may run it.
const HELD_MARK: &str = "rblocksync-held:";
/// Lines of a replica's description that stay true of the VM that it becomes.
const STAYS: [&str; 2] = ["Not part of it:", "cicustom names"];

/// Whether the VM was retired by us, and is locked still.
pub fn is_retired(config: &VmConfig) -> bool {
    config.lock() == Some(GUARD_LOCK) && was_retired(config)
}

/// Whether the VM was retired by us, and not reinstated since; somebody may have unlocked it.
pub fn was_retired(config: &VmConfig) -> bool {
    mark_of(config, RETIRED_MARK).is_some()
}

/// Whether the lock of the VM is ours, put there by [`held`].
pub fn is_locked_while_held(config: &VmConfig) -> bool {
    config.lock() == Some(GUARD_LOCK) && mark_of(config, HELD_MARK).is_some()
}

/// The configuration of a VM that is to be kept off for now. The hookscript is enough, and may stay; without one the VM is
/// locked.
pub fn held(config: &VmConfig, why: &str, hookscript: Option<&str>) -> String {
    let mut text = ConfigText::new(&config.to_string());
    match hookscript {
        Some(_) => text.set("hookscript", hookscript),
        None => {
            text.set("lock", Some(GUARD_LOCK));
            drop_note(&mut text, HELD_MARK);
            text.add_note(&format!("{OUR_LINE} {HELD_MARK} {why}"));
        }
    }
    text.to_string()
}

/// The configuration of a VM that is not kept off any more.
pub fn released(config: &VmConfig) -> String {
    let mut text = ConfigText::new(&config.to_string());
    if is_locked_while_held(config) {
        text.set("lock", None);
    }
    drop_note(&mut text, HELD_MARK);
    text.to_string()
}

/// The configuration that a replica's text becomes: without guards, with what the source's said of its start. `present`
/// has the snapshots.
pub fn promoted(
    pair: &TargetPair,
    generation: &Generation,
    rendered: &str,
    present: Option<&VmConfig>,
    hookscript: Option<&str>,
) -> rblocksync::error::Result<String> {
    let source = VmConfig::parse(&generation.config)?;
    let mut text = ConfigText::new(rendered);
    text.set("lock", None);
    text.set("onboot", source.get("onboot"));
    text.set("tags", own_tags(source.get("tags")).as_deref());
    text.set("hookscript", hookscript);
    if let Some(present) = present {
        text.take_sections(ConfigText::new(&present.to_string()));
    }
    let name = generation.name();
    let parent = text.has_section(&name).then_some(name.as_str());
    text.set("parent", parent);
    text.drop_notes(|note| {
        note.strip_prefix(OUR_LINE)
            .is_some_and(|ours| !STAYS.iter().any(|s| ours.trim_start().starts_with(s)))
    });
    text.add_note(&format!("{OUR_LINE} {WAS_PAIR_MARK} {}", pair.pair));
    text.add_note(&format!(
        "{OUR_LINE} Taken over in epoch {} from generation {name}, of {}: until then it was VM {} on host {}.",
        pair.standing.epoch, generation.taken_at, pair.vm, pair.source_name
    ));
    Ok(text.to_string())
}

/// The configuration of a VM that is not to be started here any more.
pub fn retired(config: &VmConfig, why: &str, hookscript: Option<&str>) -> String {
    let mut text = ConfigText::new(&config.to_string());
    text.set("lock", Some(GUARD_LOCK));
    text.set("onboot", Some("0"));
    let tags: Vec<String> = own_tags(config.get("tags"))
        .into_iter()
        .chain([RETIRED_TAG.to_owned()])
        .collect();
    text.set("tags", Some(&tags.join(";")));
    if hookscript.is_some() {
        text.set("hookscript", hookscript);
    }
    drop_note(&mut text, RETIRED_MARK);
    text.add_note(&format!("{OUR_LINE} {RETIRED_MARK} {why}"));
    text.to_string()
}

/// The configuration of a VM as it was `before` it was retired, in what that changes; the rest is as it is now.
pub fn reinstated(now: &VmConfig, before: &VmConfig) -> String {
    let mut text = ConfigText::new(&now.to_string());
    text.set("lock", None);
    for key in ["onboot", "tags"] {
        text.set(key, before.get(key));
    }
    if now.get("hookscript").is_some_and(guard::is_ours) {
        text.set("hookscript", before.get("hookscript"));
    }
    drop_note(&mut text, RETIRED_MARK);
    text.to_string()
}

/// The configuration of a retired VM that a replica of `pair` may replace.
pub fn yielded(config: &VmConfig, pair: Uuid) -> String {
    let mut text = ConfigText::new(&config.to_string());
    text.drop_notes(|note| note.starts_with(OUR_LINE));
    text.add_note(&format!("{OUR_LINE} {PAIR_MARK} {pair}"));
    text.to_string()
}

fn drop_note(text: &mut ConfigText, mark: &str) {
    text.drop_notes(|note| {
        note.strip_prefix(OUR_LINE)
            .is_some_and(|ours| ours.trim_start().starts_with(mark))
    });
}

/// A VM's tags without those that we give.
fn own_tags(tags: Option<&str>) -> Option<String> {
    let own: Vec<&str> = tags?
        .split([';', ',', ' ', '\t'])
        .filter(|tag| !tag.is_empty() && ![TAG, RETIRED_TAG].contains(tag))
        .collect();
    (!own.is_empty()).then(|| own.join(";"))
}
