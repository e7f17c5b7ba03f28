//! What a VM's configuration asks of its host by name, and what that is called on another one: the bridges of its network
//! cards, and the type of its processor. And what this node lacks of that.

use crate::node::PveTree;
use crate::vm_config::VmConfig;
use rblocksync::error::Result;
use rblocksync::replica::{mapped, Maps};

/// The type of a VM that names none.
const USUAL_CPU: &str = "kvm64";

/// What the types that QEMU and Proxmox VE know are called without their variants (`-v2`, `-noTSX`, `-IBRS`).
const CPUS: [&str; 46] = [
    "host",
    "max",
    "kvm32",
    "kvm64",
    "qemu32",
    "qemu64",
    "x86-64",
    "486",
    "athlon",
    "phenom",
    "coreduo",
    "core2duo",
    "pentium",
    "pentium2",
    "pentium3",
    "Conroe",
    "Penryn",
    "Nehalem",
    "Westmere",
    "SandyBridge",
    "IvyBridge",
    "Haswell",
    "Broadwell",
    "Skylake-Client",
    "Skylake-Server",
    "Cascadelake-Server",
    "Cooperlake",
    "Icelake-Client",
    "Icelake-Server",
    "SapphireRapids",
    "GraniteRapids",
    "SierraForest",
    "ClearwaterForest",
    "KnightsMill",
    "Denverton",
    "Snowridge",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "Opteron_G4",
    "Opteron_G5",
    "EPYC",
    "EPYC-Rome",
    "EPYC-Milan",
    "EPYC-Genoa",
    "EPYC-Turin",
];

/// A line of the configuration as it is on the target. Lines that name nothing of the host are as they were.
pub(crate) fn line(key: &str, value: &str, maps: &Maps) -> String {
    let family = key.trim_end_matches(|c: char| c.is_ascii_digit());
    match family {
        "net" => net(value, maps),
        "cpu" => cpu(value, maps),
        _ => value.to_owned(),
    }
}

/// The line of a VM that has none for its processor, if it is to have one.
pub(crate) fn missing_cpu(maps: &Maps) -> Option<String> {
    mapped(&maps.cpus, USUAL_CPU)
        .filter(|to| *to != USUAL_CPU)
        .map(str::to_owned)
}

fn net(value: &str, maps: &Maps) -> String {
    let renamed = |part: &str| match part.strip_prefix("bridge=") {
        Some(bridge) => match mapped(&maps.networks, bridge) {
            Some(to) => format!("bridge={to}"),
            None => part.to_owned(),
        },
        None => part.to_owned(),
    };
    value.split(',').map(renamed).collect::<Vec<_>>().join(",")
}

/// What follows the type, such as flags, stays.
fn cpu(value: &str, maps: &Maps) -> String {
    let renamed = |part: &str| {
        let is_type = part.starts_with("cputype=") || !part.contains('=');
        match mapped(&maps.cpus, part.strip_prefix("cputype=").unwrap_or(part)) {
            Some(to) if is_type => to.to_owned(),
            _ => part.to_owned(),
        }
    };
    value.split(',').map(renamed).collect::<Vec<_>>().join(",")
}

/// The type of the VM's processor.
pub fn cpu_type(config: &VmConfig) -> &str {
    let value = config.get("cpu").unwrap_or_default();
    let named = value.split(',').find_map(|part| {
        part.strip_prefix("cputype=")
            .or((!part.contains('=')).then_some(part))
    });
    named.filter(|name| !name.is_empty()).unwrap_or(USUAL_CPU)
}

/// What the VM will ask of this node, as `maps` have it, that is not there.
pub(crate) fn lacking(tree: &PveTree, config: &VmConfig, maps: &Maps) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (key, value) in config.main().entries() {
        let Some(number) = key.strip_prefix("net") else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let renamed = net(value, maps);
        let bridge = renamed.split(',').find_map(|p| p.strip_prefix("bridge="));
        if let Some(bridge) = bridge.filter(|bridge| !has_bridge(tree, bridge)) {
            notes.push(format!(
                "{key}: there is no bridge {bridge} there, so the VM could not be started; name another one with \
                 --bridge SRC=DST"
            ));
        }
    }
    let there = mapped(&maps.cpus, cpu_type(config)).unwrap_or(cpu_type(config));
    if !knows_cpu(tree, there)? {
        notes.push(format!(
            "the processor type {there} is not known there, so the VM may not start; name another one with --cpu TYPE"
        ));
    }
    Ok(notes)
}

/// One that is up, or is configured: by hand, or as a network of the whole data centre.
fn has_bridge(tree: &PveTree, bridge: &str) -> bool {
    if bridge.contains('/')
        || tree
            .below_root("/sys/class/net".as_ref())
            .join(bridge)
            .exists()
    {
        return true;
    }
    let dir = tree.below_root("/etc/network".as_ref());
    let mut files = vec![dir.join("interfaces")];
    if let Ok(entries) = std::fs::read_dir(dir.join("interfaces.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let defines = |text: String| {
        text.lines().any(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next() == Some("iface") && words.next() == Some(bridge)
        })
    };
    files
        .iter()
        .any(|file| std::fs::read_to_string(file).is_ok_and(defines))
}

fn knows_cpu(tree: &PveTree, name: &str) -> Result<bool> {
    if let Some(own) = name.strip_prefix("custom-") {
        let models = tree.cluster_file("virtual-guest/cpu-models.conf")?;
        return Ok(models.unwrap_or_default().lines().any(|line| {
            line.strip_prefix("cpu-model:")
                .is_some_and(|model| model.trim() == own)
        }));
    }
    let mut stem = name;
    loop {
        if CPUS.contains(&stem) {
            return Ok(true);
        }
        match stem.rsplit_once('-') {
            Some((rest, _)) => stem = rest,
            None => return Ok(false),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn maps() -> Maps {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        Maps {
            networks: vec![pair("vmbr0", "vmbr1")],
            cpus: vec![pair("host", "x86-64-v2-AES"), pair("kvm64", "qemu64")],
        }
    }

    #[test]
    fn only_the_names_change() {
        let maps = maps();
        for (key, value, there) in [
            (
                "net0",
                "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=5",
                "virtio=BC:24:11:00:00:01,bridge=vmbr1,firewall=1,tag=5",
            ),
            (
                "net1",
                "e1000=BC:24:11:00:00:02,bridge=vmbr01",
                "e1000=BC:24:11:00:00:02,bridge=vmbr01",
            ),
            ("net2", "virtio", "virtio"),
            ("cpu", "host", "x86-64-v2-AES"),
            (
                "cpu",
                "cputype=host,flags=+aes;-pcid",
                "x86-64-v2-AES,flags=+aes;-pcid",
            ),
            ("cpu", "EPYC,hidden=1", "EPYC,hidden=1"),
            ("name", "vmbr0", "vmbr0"),
        ] {
            assert_eq!(line(key, value, &maps), there);
            assert_eq!(line(key, value, &Maps::default()), value);
        }
        assert_eq!(missing_cpu(&maps).as_deref(), Some("qemu64"));
        assert_eq!(missing_cpu(&Maps::default()), None);
    }

    #[test]
    fn the_type_of_a_processor_is_read() {
        let of = |line: &str| cpu_type(&VmConfig::parse(line).unwrap()).to_owned();
        assert_eq!(of("name: x\n"), "kvm64");
        assert_eq!(of("cpu: host,flags=+aes\n"), "host");
        assert_eq!(of("cpu: flags=+aes,cputype=custom-a\n"), "custom-a");
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for sub in [
            "sys/class/net/vmbr0",
            "etc/network/interfaces.d",
            "etc/pve/virtual-guest",
        ] {
            std::fs::create_dir_all(at(sub)).unwrap();
        }
        std::fs::write(
            at("etc/network/interfaces"),
            "auto vmbr1\niface vmbr1 inet manual\n",
        )
        .unwrap();
        std::fs::write(at("etc/network/interfaces.d/sdn"), "iface vnet0\n").unwrap();
        std::fs::write(
            at("etc/pve/virtual-guest/cpu-models.conf"),
            "cpu-model: small\n\tflags +aes\n",
        )
        .unwrap();
        let tree = PveTree::new(dir.path());
        let told = |text: &str, maps: &Maps| {
            lacking(&tree, &VmConfig::parse(text).unwrap(), maps).unwrap()
        };
        let nothing = Maps::default();
        for fine in [
            "net0: virtio=A,bridge=vmbr0\nnet1: virtio=B,bridge=vmbr1\nnet2: virtio=C,bridge=vnet0\nnet3: virtio\n",
            "cpu: EPYC-Milan-v2\n",
            "cpu: Skylake-Server-noTSX-IBRS\n",
            "cpu: x86-64-v2-AES\n",
            "cpu: custom-small\n",
        ] {
            assert_eq!(told(fine, &nothing), Vec::<String>::new(), "{fine}");
        }
        let notes = told("cpu: custom-large\nnet0: virtio=A,bridge=vmbr7\n", &nothing);
        assert!(
            notes[0].contains("net0: there is no bridge vmbr7"),
            "{notes:?}"
        );
        assert!(notes[1].contains("custom-large is not known"), "{notes:?}");
        let away = Maps {
            networks: vec![("vmbr0".into(), "vmbr9".into())],
            cpus: vec![("kvm64".into(), "Pentium99".into())],
        };
        let notes = told("net0: virtio=A,bridge=vmbr0\n", &away);
        assert!(notes[0].contains("no bridge vmbr9"), "{notes:?}");
        assert!(notes[1].contains("Pentium99"), "{notes:?}");
    }
}
