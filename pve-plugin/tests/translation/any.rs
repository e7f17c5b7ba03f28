//! Any VM: what both hypervisors have words for, or one of them.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rblocksync::guest::Rng;
use rblocksync::guest::*;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Who is to have words for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Of {
    Both,
    Pve,
    Libvirt,
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

const FAMILIES: [OsFamily; 13] = OsFamily::ALL;

type People = (String, String, Vec<String>, Uuid, Option<Uuid>);

fn people() -> impl Strategy<Value = People> {
    (
        "[a-z][a-z0-9]{0,9}(\\.[a-z][a-z0-9]{0,5})?",
        "([A-Za-z\u{e4}%:&<>'\"]{1,12}( [a-z#.]{1,9}){0,3}\n){0,3}[a-z]{0,5}",
        vec("[a-z0-9][a-z0-9_-]{0,8}", 0..4),
        uuid(),
        option::of(uuid()),
    )
}

fn cpu(of: Of) -> impl Strategy<Value = Cpu> {
    let named = select(vec!["kvm64", "Haswell", "EPYC", "Skylake-Server", "qemu64"]);
    let level = select(vec!["x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "x86-64-v4"]);
    let model = prop_oneof![
        Just(CpuModel::Host),
        Just(CpuModel::Max),
        named.prop_map(|n| CpuModel::Named(n.into())),
        level.prop_map(|n| CpuModel::Level(n.into())),
    ];
    let model = match of {
        Of::Libvirt => prop_oneof![model, Just(CpuModel::HostModel)].boxed(),
        _ => model.boxed(),
    };
    let names = vec!["md-clear", "pcid", "spec-ctrl", "ssbd", "pdpe1gb"];
    let flags = subsequence(names, 0..4).prop_flat_map(|names| {
        let count = names.len();
        (Just(names), vec(any::<bool>(), count))
    });
    let threads = if of == Of::Libvirt { 1..3u32 } else { 1..2 };
    (
        model,
        flags,
        any::<bool>(),
        1..3u32,
        1..9u32,
        threads,
        option::of(1..4u32),
    )
        .prop_map(
            |(model, (names, on), hidden, sockets, cores, threads, online)| Cpu {
                model,
                flags: names
                    .into_iter()
                    .zip(on)
                    .map(|(name, on)| CpuFlag {
                        name: name.into(),
                        on,
                    })
                    .collect(),
                hidden,
                sockets,
                cores,
                threads,
                online: online.filter(|n| *n < sockets * cores * threads),
            },
        )
}

fn rates() -> impl Strategy<Value = Rates> {
    let rate = || prop_oneof![3 => Just(0u64), 1 => 1..(1u64 << 40)];
    (rate(), rate(), rate(), rate(), rate(), rate()).prop_map(
        |(bytes, bytes_read, bytes_written, operations, reads, writes)| Rates {
            bytes,
            bytes_read,
            bytes_written,
            operations,
            reads,
            writes,
        },
    )
}

fn disk() -> impl Strategy<Value = Disk> {
    let cache = select(vec![
        Cache::None,
        Cache::Writethrough,
        Cache::Writeback,
        Cache::Unsafe,
        Cache::Directsync,
    ]);
    let aio = option::of(select(vec![Aio::Threads, Aio::Native, Aio::IoUring]));
    (
        (cache, aio, any::<bool>(), option::of(any::<bool>())),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        (
            option::of("[A-Za-z0-9_-]{1,20}"),
            option::of("[0-9a-f]{16}"),
            rates(),
        ),
    )
        .prop_map(
            |((cache, aio, discard, detect), (iothread, ssd, read_only), (serial, wwn, rates))| {
                Disk {
                    cache,
                    aio,
                    discard,
                    detect_zeroes: detect,
                    iothread,
                    ssd,
                    read_only,
                    serial,
                    wwn,
                    rates,
                    ..Disk::new("", "", DiskUse::Unused)
                }
            },
        )
}

fn nic(of: Of) -> impl Strategy<Value = Nic> {
    let models = vec![
        "virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci",
    ];
    let networks = match of {
        Of::Libvirt => vec![
            Network::Bridge("br0".into()),
            Network::Named("default".into()),
            Network::User,
        ],
        _ => vec![Network::Bridge("vmbr1".into()), Network::User],
    };
    (
        select(models),
        any::<[u8; 6]>(),
        select(networks),
        (
            option::of(1..4095u16),
            option::of(68..9001u32),
            option::of(2..9u32),
        ),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            move |(model, mac, network, (vlan, mtu, queues), link, firewall)| {
                let is_virtio = model == "virtio";
                let is_user = network == Network::User;
                let is_bridge = matches!(network, Network::Bridge(_));
                let mac: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
                Nic {
                    key: String::new(),
                    model: model.into(),
                    mac: Some(mac.join(":")),
                    network,
                    vlan: vlan.filter(|_| is_bridge || of == Of::Pve),
                    mtu: mtu.filter(|_| is_virtio && !is_user),
                    queues: queues.filter(|_| is_virtio && !is_user),
                    link,
                    firewall: firewall && of == Of::Pve,
                }
            },
        )
}

fn display(of: Of) -> impl Strategy<Value = Display> {
    let video = prop_oneof![
        select(vec![
            Video::Std,
            Video::Cirrus,
            Video::Vmware,
            Video::Virtio,
            Video::None
        ]),
        (1..5u8).prop_map(Video::Qxl),
        (0..4u8).prop_map(Video::Serial),
        Just(if of == Of::Pve {
            Video::VirtioGl
        } else {
            Video::Std
        }),
    ];
    (video, option::of(17..512u32)).prop_map(|(video, memory)| Display {
        video,
        memory_mib: memory.filter(|_| matches!(video, Video::Std | Video::Cirrus | Video::Vmware)),
    })
}

type Drives = (
    BTreeSet<(Bus, u16)>,
    Vec<Disk>,
    BTreeSet<(Bus, u16)>,
    ScsiController,
);

fn drives(of: Of) -> impl Strategy<Value = Drives> {
    let place = || {
        prop_oneof![
            (0..4u16).prop_map(|n| (Bus::Ide, n)),
            (0..6u16).prop_map(|n| (Bus::Sata, n)),
            (0..31u16).prop_map(|n| (Bus::Scsi, n)),
            (0..16u16).prop_map(|n| (Bus::Virtio, n)),
        ]
    };
    let mut controllers = vec![
        ScsiController::Lsi,
        ScsiController::Virtio,
        ScsiController::VirtioSingle,
        ScsiController::Megasas,
        ScsiController::Pvscsi,
    ];
    if of == Of::Pve {
        controllers.push(ScsiController::Lsi53c810);
    }
    (
        btree_set(place(), 1..7),
        vec(disk(), 7),
        btree_set(place(), 0..3),
        select(controllers),
    )
}

/// A VM that has a word for all in the forms of `of`.
pub fn guest(of: Of) -> impl Strategy<Value = Guest> {
    let rng = option::of((
        select(vec!["/dev/urandom", "/dev/hwrng"]),
        1..10_000u64,
        1..5000u64,
    ));
    let watchdog = option::of((
        select(vec!["i6300esb", "ib700"]),
        select(vec![
            WatchdogAction::Reset,
            WatchdogAction::Shutdown,
            WatchdogAction::Poweroff,
            WatchdogAction::Pause,
            WatchdogAction::None,
        ]),
    ));
    let fields = vec![
        "manufacturer",
        "product",
        "version",
        "serial",
        "sku",
        "family",
    ];
    let smbios = btree_map(select(fields), "[A-Z\u{fc}][A-Za-z0-9,=;&]{0,12}", 0..4);
    let version = option::of(select(vec!["9.2", "8.1", "10.0"]));
    (
        (
            people(),
            smbios,
            select(FAMILIES.to_vec()),
            any::<bool>(),
            version,
        ),
        (
            cpu(of),
            16..1_000_000u64,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        ),
        (
            drives(of),
            vec(nic(of), 0..8),
            subsequence(vec![0, 1, 2, 3u8], 0..5),
        ),
        (any::<bool>(), rng, watchdog, display(of), any::<bool>()),
        (0..4u8, option::of(any::<bool>()), any::<bool>()),
        vec(any::<prop::sample::Index>(), 1..5),
    )
        .prop_map(move |(who, board, devices, small, firmware, boot)| {
            let (people, smbios, family, is_q35, version) = who;
            let (cpu, mib, balloon, local, acpi) = board;
            let (drives, nics, serials) = devices;
            let (agent, rng, watchdog, display, tablet) = small;
            let mut guest = Guest {
                name: Some(people.0),
                description: people.1.trim().to_owned(),
                tags: people.2,
                uuid: Some(people.3),
                generation_id: people.4,
                smbios: smbios.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
                os: Os { family, id: None },
                machine: Machine {
                    chipset: if is_q35 {
                        Chipset::Q35
                    } else {
                        Chipset::I440fx
                    },
                    version: version.map(str::to_owned),
                },
                cpu,
                memory: Memory {
                    kib: mib << 10,
                    balloon,
                },
                clock: if local { Clock::LocalTime } else { Clock::Utc },
                acpi,
                serials,
                agent,
                rng: rng.map(|(source, bytes, period_ms)| Rng {
                    source: source.into(),
                    bytes,
                    period_ms,
                }),
                watchdog: watchdog.map(|(model, action)| Watchdog {
                    model: model.into(),
                    action,
                }),
                display,
                tablet,
                nics,
                ..Guest::default()
            };
            for (index, nic) in guest.nics.iter_mut().enumerate() {
                nic.key = format!("net{index}");
            }
            attach(&mut guest, drives, of);
            show(&mut guest, of);
            flash(&mut guest, firmware, of);
            let keys: Vec<String> = guest
                .disks
                .iter()
                .filter(|d| matches!(d.role, DiskUse::Data { .. }))
                .map(|d| d.key.clone())
                .chain(guest.cds.iter().map(|cd| cd.key.clone()))
                .chain(guest.nics.iter().map(|nic| nic.key.clone()))
                .collect();
            for index in boot {
                let key = &keys[index.index(keys.len())];
                if !guest.boot.contains(key) {
                    guest.boot.push(key.clone());
                }
            }
            guest
        })
}

fn attach(guest: &mut Guest, (places, disks, cds, scsi): Drives, of: Of) {
    let is_q35 = guest.machine.chipset == Chipset::Q35;
    let fits = |bus: Bus| of == Of::Pve || !(is_q35 && bus == Bus::Ide);
    let mut places: BTreeSet<_> = places.into_iter().filter(|(bus, _)| fits(*bus)).collect();
    if places.is_empty() {
        places.insert((Bus::Virtio, 0));
    }
    let cds: BTreeSet<_> = cds
        .into_iter()
        .filter(|(bus, slot)| fits(*bus) && *bus != Bus::Virtio && !places.contains(&(*bus, *slot)))
        .collect();
    let on_scsi = places
        .iter()
        .chain(&cds)
        .filter(|(bus, _)| *bus == Bus::Scsi)
        .count();
    guest.scsi = match (on_scsi, scsi) {
        (0, _) => ScsiController::Lsi,
        // The same hardware, so it cannot be told apart.
        (1, ScsiController::Virtio) => ScsiController::VirtioSingle,
        (_, scsi) => scsi,
    };
    for ((bus, slot), mut disk) in places.into_iter().zip(disks) {
        disk.key = format!("{bus:?}{slot}").to_lowercase();
        disk.role = DiskUse::Data { bus, slot };
        let single = guest.scsi == ScsiController::VirtioSingle;
        disk.iothread &= bus == Bus::Virtio || (bus == Bus::Scsi && single);
        disk.ssd &= bus != Bus::Virtio;
        disk.read_only &= matches!(bus, Bus::Scsi | Bus::Virtio);
        disk.wwn = disk.wwn.filter(|_| bus != Bus::Virtio);
        if disk.aio == Some(Aio::Native) && !matches!(disk.cache, Cache::None | Cache::Directsync) {
            disk.aio = None;
        }
        guest.disks.push(disk);
    }
    for (bus, slot) in cds {
        let key = format!("{bus:?}{slot}").to_lowercase();
        guest.cds.push(CdDrive::new(key, bus, slot));
    }
}

/// A VM without a card shows its first serial port.
fn show(guest: &mut Guest, of: Of) {
    let first = guest.serials.first().copied();
    guest.display.video = match (guest.display.video, first) {
        (Video::Serial(port), _) if of == Of::Pve && guest.serials.contains(&port) => {
            Video::Serial(port)
        }
        (Video::None, _) if of == Of::Pve => Video::None,
        (Video::Serial(_) | Video::None, Some(port)) => Video::Serial(port),
        (Video::Serial(_) | Video::None, None) => Video::None,
        (video, _) => video,
    };
}

fn flash(guest: &mut Guest, (kind, secure, tpm): (u8, Option<bool>, bool), of: Of) {
    let is_q35 = guest.machine.chipset == Chipset::Q35;
    guest.firmware = match (kind, secure) {
        (0 | 1, _) => Firmware::Bios,
        (_, None) if of == Of::Pve => Firmware::Uefi { vars: None },
        (kind, secure) => {
            let secure = secure.unwrap_or(false);
            guest.disks.push(Disk::new("vars", "", DiskUse::Vars));
            Firmware::Uefi {
                vars: Some(Vars {
                    disk: "vars".into(),
                    flash_mib: if kind == 2 && of == Of::Pve { 2 } else { 4 },
                    secure_boot: secure && (is_q35 || of == Of::Pve),
                }),
            }
        }
    };
    if tpm && of == Of::Pve {
        guest.disks.push(Disk::new("tpm", "", DiskUse::Tpm));
        guest.tpm = Some(Tpm {
            version: TpmVersion::V20,
            disk: Some("tpm".into()),
        });
    } else if tpm && of == Of::Libvirt {
        guest.tpm = Some(Tpm {
            version: TpmVersion::V12,
            disk: None,
        });
    }
}
