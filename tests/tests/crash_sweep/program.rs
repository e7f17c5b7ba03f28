//! The smallest front end there can be: a VM is a folder with two raw files, and what a target shows is a file in its
//! folder. All else is the product's own workflow, with its real agent, watchdog and ssh.

use clap::Parser;
use rblocksync::cli::{exit_code, run_agent, OutputOptions, Reporter, SshArgs};
use rblocksync::error::{Error, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::job::{self, Context, Patient, SourceDisk, SourceVm, SyncOptions, TargetService};
use rblocksync::remote::{HostSpec, SshOptions};
use rblocksync::replica::{
    state_dir, write_json, DiskSpec, Layout, Location, Placement, ReplicaRequest, Retention,
    TargetPair,
};
use rblocksync::snapshot::{watchdog, DiskSource, VmRuntime, WatchdogLauncher};
use rblocksync::stop::Stop;
use rblocksync::sync::Tuning;
use rblocksync::verbs::{self, Place, SetupArgs, VerifyArgs};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub const PROGRAM: &str = "foldervm";
/// The disks of every VM.
pub const DISKS: [&str; 2] = ["a", "b"];
/// The target's folder, in the agent's environment.
pub const TARGET: &str = "FOLDERVM_TARGET";
/// Seconds before the newest within which all generations are kept, in the driver's environment.
pub const WITHIN: &str = "FOLDERVM_WITHIN_S";
/// Seconds for which the driver tries again when the link is lost, in its environment.
pub const RETRY: &str = "FOLDERVM_RETRY_S";
/// The host that a sync goes to, as `USER@HOST`, in the driver's environment.
pub const HOSTNAME: &str = "FOLDERVM_HOST";
/// What the target shows of a replica.
pub const SHOWN: &str = "shown.json";
/// Generations that are kept.
pub const KEEP: u32 = 2;

/// Does what a word after the program's name asks for; `None` if it is none of ours.
pub fn main(word: &str, args: Vec<OsString>) -> Option<ExitCode> {
    match word {
        "agent" => {
            let folder = Folder {
                dir: std::env::var_os(TARGET)?.into(),
            };
            let mut service = TargetService::new(Layout::new(state_dir()), &folder);
            Some(run_agent(PROGRAM, &args, &mut service))
        }
        "watchdog" => {
            let code = watchdog::main_from_args(args);
            Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        "sync" => Some(sync(&args)),
        "doctor" => Some(doctor(&args)),
        "verify" => Some(verify(args)),
        "setup" => Some(setup(args)),
        _ => None,
    }
}

/// `sync SOURCE-FOLDER MONITOR SSH-CONFIG`
fn sync(args: &[OsString]) -> ExitCode {
    let [source, monitor, config] = args else {
        return ExitCode::from(2);
    };
    match try_sync(Path::new(source), Path::new(monitor), Path::new(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn try_sync(source: &Path, monitor: &Path, config: &Path) -> Result<()> {
    let vm = SourceVm {
        program: PROGRAM,
        id: "101".into(),
        name: "swept".into(),
        host: "here".into(),
        identity: None,
        config: String::new(),
        described: None,
        config_now: Box::new(|| Ok(String::new())),
        disks: disks_in(source),
        excluded: Vec::new(),
        notes: Vec::new(),
    };
    let runtime = VmRuntime {
        state: None,
        qmp: Some(monitor.to_owned()),
        manager: None,
        agent: None,
        stopped: Box::new(|| Ok(false)),
        launcher: WatchdogLauncher::this_executable(),
    };
    let options = SyncOptions {
        target_vm: None,
        storage_map: Vec::new(),
        maps: Default::default(),
        formats: Vec::new(),
        retention: Retention {
            keep: KEEP,
            within_s: number(WITHIN),
        },
        jobs: 2,
        in_place: false,
        keep_base: true,
        moves: false,
        scratch: None,
        scratch_bytes_max: None,
        dry_run: false,
        tuning: Tuning::default(),
        streams: rblocksync::driver::Streams::Fixed(1),
        direct: false,
        hold_max: Duration::from_secs(8),
        retry_for: Duration::from_secs(number(RETRY).unwrap_or(0)),
    };
    let (layout, stop) = (Layout::new(state_dir()), Stop::new());
    let ssh = SshOptions {
        config_file: Some(config.to_owned()),
        keys: Some(Layout::new(state_dir()).keys()),
        stop: stop.clone(),
        ..SshOptions::default()
    };
    let host = std::env::var(HOSTNAME).unwrap_or_else(|_| tests::sshd::HOST.into());
    let context = Context {
        layout: &layout,
        host: &HostSpec::parse(&host)?,
        ssh: &ssh,
        reporter: &Reporter::new(OutputOptions::default()),
        stop: &stop,
    };
    job::sync(&context, &vm, runtime, &options).map(drop)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn disks_in(folder: &Path) -> Vec<SourceDisk> {
    let disks = DISKS.map(|key| {
        let path = folder.join(format!("{key}.raw"));
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        SourceDisk {
            spec: DiskSpec {
                key: key.into(),
                volume: format!("{key}.raw"),
                size,
                used: size,
                format: ImageFormat::Raw,
            },
            source: DiskSource::Path(path),
        }
    });
    disks.into()
}

/// `verify` as every front end has it.
#[derive(Parser)]
struct VerifyCli {
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    ssh: SshArgs,
    /// Where the VM's disks are
    #[arg(long)]
    folder: PathBuf,
}

fn verify(args: Vec<OsString>) -> ExitCode {
    let cli = VerifyCli::parse_from([PROGRAM.into()].into_iter().chain(args));
    at(&cli.folder, &cli.ssh, |place| {
        verbs::verify(&cli.verify, place, &|_| Ok(disks_in(&cli.folder)))
    })
}

/// `setup` as every front end has it.
#[derive(Parser)]
struct SetupCli {
    #[command(flatten)]
    setup: SetupArgs,
    #[command(flatten)]
    ssh: SshArgs,
}

fn setup(args: Vec<OsString>) -> ExitCode {
    let cli = SetupCli::parse_from([PROGRAM.into()].into_iter().chain(args));
    at(Path::new("/"), &cli.ssh, |place| {
        verbs::setup(&cli.setup, place)
    })
}

fn at(folder: &Path, ssh: &SshArgs, act: impl FnOnce(&Place) -> Result<()>) -> ExitCode {
    let (layout, stop) = (Layout::new(state_dir()), Stop::new());
    let place = Place {
        program: PROGRAM,
        layout: &layout,
        hypervisor: &Folder { dir: folder.into() },
        ssh,
        reporter: &Reporter::new(OutputOptions::default()),
        stop: &stop,
    };
    match act(&place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit_code(&error, &stop))
        }
    }
}

/// `doctor FOLDER`: puts right what was left on a host, whose VM and replica are in that folder.
fn doctor(args: &[OsString]) -> ExitCode {
    let Some(dir) = args.first().map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    let (layout, folder) = (Layout::new(state_dir()), Folder { dir: dir.clone() });
    let disks = |_: &str| {
        Ok(DISKS
            .map(|key| DiskSource::Path(dir.join(format!("{key}.raw"))))
            .into())
    };
    let patient = Patient {
        layout: &layout,
        hypervisor: &folder,
        disks: &disks,
        needed: &[],
        trials: None,
        laid_over: None,
    };
    match job::examine(&patient, true) {
        Ok(found) => {
            found
                .iter()
                .for_each(|f| println!("{} {}", f.repaired, f.what));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Folder {
    dir: PathBuf,
}

struct Held;

impl Hold for Held {}

impl TargetHypervisor for Folder {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("folders".into(), "there".into()))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let place = |disk: &DiskSpec| Placement {
            key: disk.key.clone(),
            volume: disk.volume.clone(),
            location: Location::File {
                path: self.dir.join(&disk.volume),
                format: disk.format,
                subvolume: false,
            },
        };
        Ok(request.disks.iter().map(place).collect())
    }

    fn hold(&self, _: &TargetPair) -> Result<Box<dyn Hold>> {
        Ok(Box::new(Held))
    }

    fn publish(&self, _: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        let numbers: Vec<u64> = generations.iter().map(|p| p.generation.number).collect();
        let path = self.dir.join(SHOWN);
        write_json(&path, &json!(numbers)).map_err(|e: Error| e.context("cannot show"))?;
        Ok(Vec::new())
    }
}
