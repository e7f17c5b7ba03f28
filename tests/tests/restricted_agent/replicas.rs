//! Replicas under a policy that lets generations be added and nothing else: a source that was taken over by somebody cannot
//! harm what is sealed.

use crate::guest::Guest;
use crate::program::{DISKS, KEEP, PROGRAM, SHOWN, TARGET};
use crate::{host, Restricted};
use rblocksync::agent::{path_bytes, BlockRequest, OpenSource, OpenTarget};
use rblocksync::driver::{RemoteAgent, Streams};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::HostDescription;
use rblocksync::image::ImageFormat;
use rblocksync::job::HostRequest;
use rblocksync::remote::Remote;
use rblocksync::replica::{
    list_generations, target_pairs, Decline, Generation, Layout, ReplicaRequest, Retention,
    TakeOver, TargetPair, VerifyRequest,
};
use rblocksync::stop::Stop;
use serde_json::{json, Value};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tests::cli::{scribble, sparse_image, Mount, Untouched, MIB};
use uuid::Uuid;

/// More than the source asks to be kept.
const SYNCS: u64 = KEEP as u64 + 2;

const POLICY: &str = "access = \"append\"\nvms = [\"10?\"]\nstorages = [\"{dir}/mounted/target\"]";

struct World {
    _guest: Guest,
    there: Restricted,
    _mount: Mount,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mount = Mount::xfs(dir.path(), 512 * MIB);
        for name in ["source", "target"] {
            fs::create_dir(mount.dir().join(name)).unwrap();
        }
        let target = mount.dir().join("target").display().to_string();
        let state = dir.path().join("target-state").display().to_string();
        let env = [(TARGET, target.as_str()), ("RBLOCKSYNC_STATE_DIR", &state)];
        let guest = Guest::start(dir.path());
        let me = std::env::current_exe().unwrap();
        let there = Restricted::new(&me, POLICY, &env, dir);
        for (seed, disk) in (1..).zip(DISKS) {
            sparse_image(
                there.path(&format!("mounted/source/{disk}.raw")),
                6 * MIB,
                &[(0, 2)],
                seed,
            );
        }
        World {
            _guest: guest,
            there,
            _mount: mount,
        }
    }

    fn sync(&self) -> Output {
        let run = Command::new(std::env::current_exe().unwrap())
            .arg("sync")
            .arg(self.there.path("mounted/source"))
            .arg(self.there.path("monitor"))
            .arg(self.there.sshd.client_config())
            .env("RBLOCKSYNC_STATE_DIR", self.there.path("source-state"))
            .env("TMPDIR", self.there.dir.path())
            .stdin(Stdio::null())
            .output();
        run.unwrap()
    }

    fn synced(&self) {
        let run = self.sync();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }

    fn target(&self, name: &str) -> PathBuf {
        self.there.path("mounted/target").join(name)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.there.path("target-state"))
    }

    fn pair(&self) -> TargetPair {
        target_pairs(&self.layout()).unwrap().remove(0)
    }

    fn generations(&self) -> Vec<Generation> {
        list_generations(&self.layout(), None).unwrap().remove(0).1
    }

    /// Everything that must stay as it is.
    fn untouched(&self) -> Untouched {
        let mut paths = vec![
            self.target(SHOWN),
            self.layout().target_pair(self.pair().pair),
        ];
        for disk in DISKS {
            paths.push(self.target(&format!("{disk}.raw")));
            for generation in self.generations() {
                paths.push(self.target(&format!(".{disk}.raw.{}", generation.name())));
            }
        }
        for path in &paths {
            assert!(path.exists(), "{}", path.display());
        }
        Untouched::note(paths)
    }

    fn ask<T>(&self, work: impl FnOnce(&mut RemoteAgent) -> Result<T>) -> Result<T> {
        Remote::during(&host(), &self.there.options(), |session| {
            let stop = Stop::new();
            RemoteAgent::start(session, PROGRAM, Streams::Fixed(1), &stop)?.during(work)
        })
    }

    fn host(&self, request: &HostRequest) -> Result<Value> {
        self.ask(|agent| agent.client().host(request))
    }

    fn block(&self, request: BlockRequest) -> Result<Value> {
        self.ask(|agent| agent.client().block(request))
    }

    fn request(&self) -> ReplicaRequest {
        let pair = self.pair();
        let newest = self.generations().pop().unwrap();
        let disks = newest.disks.iter().map(|disk| {
            json!({"key": disk.key, "volume": disk.source, "size": disk.size, "used": disk.size,
                "format": ImageFormat::Raw})
        });
        let disks: Vec<Value> = disks.collect();
        serde_json::from_value(json!({
            "run": Uuid::new_v4(), "pair": pair.pair, "source_host": pair.source_host,
            "source_name": pair.source_name, "vm": pair.vm, "target_vm": null, "config": "",
            "disks": disks, "excluded": [], "storage_map": [],
            "retention": Retention { keep: 1, within_s: None }, "in_place": false, "epoch": 1,
            "newest": null,
        }))
        .unwrap()
    }
}

pub fn append_only() {
    let world = World::new();
    for round in 0..SYNCS {
        world.synced();
        for (seed, disk) in (round * 2 + 10..).zip(DISKS) {
            let path = world.there.path(&format!("mounted/source/{disk}.raw"));
            scribble(path, round * 300_000, 200_000, seed);
        }
    }
    let all = world.generations();
    assert_eq!(
        all.len() as u64,
        SYNCS,
        "none was pruned, though the source keeps {KEEP}"
    );
    let last = all.last().unwrap();
    let sent: u64 = last.disks.iter().map(|disk| disk.changed).sum();
    assert!(sent < 2 * MIB, "only what changed: {sent}");
    assert!(
        world.there.logged().is_empty(),
        "{:?}",
        world.there.logged()
    );

    served(&world);
    refused(&world, last.number);
    other_peers(&world);
    world.synced();
    assert_eq!(world.generations().len() as u64, SYNCS + 1);
}

/// Of what changes nothing all is served.
fn served(world: &World) {
    let untouched = world.untouched();
    let describe = HostRequest::Describe { keep: false };
    let description = world.host(&describe).unwrap();
    let description: HostDescription = serde_json::from_value(description).unwrap();
    assert_eq!(description.hypervisor, "folders");
    for request in [
        HostRequest::Generations(None),
        HostRequest::Generations(Some("101".into())),
        HostRequest::Plan(Box::new(world.request())),
        HostRequest::Verify(VerifyRequest {
            vm: "101".into(),
            generation: None,
            slice: None,
        }),
        HostRequest::Prune {
            vm: "101".into(),
            retention: Retention {
                keep: 1,
                within_s: None,
            },
            dry_run: true,
        },
    ] {
        world.host(&request).unwrap();
    }
    untouched.check();
}

#[track_caller]
fn is_refused(world: &World, what: &str, result: Result<Value>) {
    let error: Error = result.map(|answer| panic!("{what}: {answer}")).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{what}: {error}");
    assert!(error.to_string().contains("policy"), "{what}: {error}");
    let logged = world.there.logged().pop().unwrap_or_default();
    let message = error.message();
    let message = message
        .split_once(": ")
        .map_or(message.as_str(), |(_, rest)| rest);
    assert!(logged.contains(message), "{what}: {logged} / {message}");
}

/// What would overwrite or remove something, or turn a replica into something else.
fn refused(world: &World, newest: u64) {
    let untouched = world.untouched();
    let pair = world.pair().pair;
    let vm = || "101".to_owned();
    let order = TakeOver {
        pair,
        generation: newest,
        epoch: 2,
    };
    let bound = |change: &dyn Fn(&mut ReplicaRequest)| {
        let mut request = world.request();
        change(&mut request);
        HostRequest::Prepare(Box::new(request))
    };
    let elsewhere = Uuid::new_v4();
    for request in [
        HostRequest::Prune {
            vm: vm(),
            retention: Retention {
                keep: 1,
                within_s: None,
            },
            dry_run: false,
        },
        HostRequest::Pin {
            vm: vm(),
            generation: newest,
            pinned: false,
        },
        HostRequest::Unseal {
            vm: vm(),
            generation: newest,
            disks: vec!["a".into()],
        },
        HostRequest::Reseal,
        bound(&|request| request.in_place = true),
        bound(&|request| {
            request.pair = elsewhere;
            request.vm = "201".into();
        }),
        bound(&|request| {
            request.pair = elsewhere;
            request.target_vm = Some("../101".into());
        }),
        HostRequest::CheckRoles,
        HostRequest::TakeOver(order.clone()),
        HostRequest::Land(order.clone()),
        HostRequest::Start { vm: vm() },
        HostRequest::Answers { vm: vm() },
        HostRequest::Decline(Decline { pair, epoch: 9 }),
        HostRequest::Leave { pair },
        HostRequest::Arrived { pair },
        HostRequest::Verify(VerifyRequest {
            vm: "201".into(),
            generation: None,
            slice: None,
        }),
    ] {
        is_refused(world, &format!("{request:?}"), world.host(&request));
        untouched.check();
    }
    let sealed = format!(".a.raw.rbs{newest}");
    for name in ["a.raw", &sealed, SHOWN, ".new.raw.rbs-fork"] {
        for create in [false, true] {
            let open = OpenTarget {
                path: path_bytes(&world.target(name)),
                create,
                dry_run: false,
                direct: false,
                format: ImageFormat::Raw,
            };
            is_refused(world, name, world.block(BlockRequest::OpenTarget(open)));
        }
        let open = OpenSource {
            path: path_bytes(&world.target(name)),
            direct: false,
            format: ImageFormat::Raw,
        };
        is_refused(world, name, world.block(BlockRequest::OpenSource(open)));
        untouched.check();
    }
}

/// A key that is for another host's replicas is good for nothing here.
fn other_peers(world: &World) {
    let untouched = world.untouched();
    let (mine, other) = (world.pair().source_host, Uuid::new_v4());
    world.there.policy(&format!("{POLICY}\npeer = \"{other}\""));
    is_refused(
        world,
        "plan",
        world.host(&HostRequest::Plan(Box::new(world.request()))),
    );
    let position = HostRequest::Position {
        pair: world.pair().pair,
    };
    is_refused(world, "position", world.host(&position));
    let seen = world.host(&HostRequest::Generations(None)).unwrap();
    assert_eq!(seen, json!([]));
    assert!(!world.sync().status.success());
    let elsewhere = POLICY.replace("target\"", "elsewhere\"");
    world.there.policy(&elsewhere);
    is_refused(
        world,
        "place",
        world.host(&HostRequest::Plan(Box::new(world.request()))),
    );
    untouched.check();
    world.there.policy(&format!("{POLICY}\npeer = \"{mine}\""));
}
