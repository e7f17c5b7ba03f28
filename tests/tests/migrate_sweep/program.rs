//! The front end that is killed: the product's own workflow with its real agent and ssh, on [`Folder`]s.

use crate::folder::Folder;
use rblocksync::cli::{run_agent, OutputOptions, Reporter};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::job::{
    self, keeper, Context, Health, Live, MigrateOptions, Migration, SourceDisk, SourceVm, StopMode,
    SyncOptions, TargetService,
};
use rblocksync::remote::{HostSpec, SshOptions};
use rblocksync::replica::{
    list_generations, state_dir, take_over, DiskSpec, Layout, Retention, Role, TakeOver,
};
use rblocksync::snapshot::{DiskSource, VmRuntime, WatchdogLauncher};
use rblocksync::stop;
use rblocksync::sync::Tuning;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub const PROGRAM: &str = "foldervm";
/// The host's folder, in the environment.
pub const FOLDER: &str = "FOLDERVM_DIR";
/// The command that tells whether the VM does well, in the environment.
pub const HEALTH: &str = "FOLDERVM_HEALTH";
pub const VM: &str = "101";

/// Does what a word after the program's name asks for; `None` if it is none of ours.
pub fn main(word: &str, args: Vec<OsString>) -> Option<ExitCode> {
    let done = match word {
        "agent" => {
            let folder = here()?;
            let mut service = TargetService::new(Layout::new(state_dir()), &folder)
                .with_roles(&folder)
                .with_live(&folder);
            return Some(run_agent(PROGRAM, &args, &mut service));
        }
        keeper::WORD => {
            let code = keeper::keep(args, &Layout::new(state_dir()), &here()?);
            return Some(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        "waits" => {
            let waited = here()?.wait(Path::new(args.first()?));
            return Some(ExitCode::from(u8::from(waited.is_err())));
        }
        "sync" | "migrate" | "live" | "undo" | "undo-lost" | "failback" | "failback-only" => {
            act(word, Path::new(args.first()?))
        }
        "fail-over" => fail_over(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn here() -> Option<Folder> {
    let dir = PathBuf::from(std::env::var_os(FOLDER)?);
    Some(Folder { dir })
}

fn no_folder() -> Error {
    Error::new(Kind::Usage, "no folder")
}

fn act(word: &str, config: &Path) -> Result<()> {
    let folder = here().ok_or_else(no_folder)?;
    let (layout, stop) = (Layout::new(state_dir()), stop::on_signals()?);
    let ssh = SshOptions {
        config_file: Some(config.to_owned()),
        stop: stop.clone(),
        ..SshOptions::default()
    };
    let context = Context {
        layout: &layout,
        host: &HostSpec::parse(tests::sshd::HOST)?,
        ssh: &ssh,
        reporter: &Reporter::new(OutputOptions::default()),
        stop: &stop,
    };
    let sync = SyncOptions {
        target_vm: None,
        storage_map: Vec::new(),
        maps: Default::default(),
        formats: Vec::new(),
        retention: Retention {
            keep: 2,
            within_s: None,
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
        retry_for: Duration::ZERO,
    };
    let options = MigrateOptions {
        // Whatever it takes here, the first round is enough.
        downtime_max: Duration::from_secs(600),
        stop: StopMode::Shutdown,
        shutdown_timeout: Duration::from_secs(1),
        live: word == "live",
        pause: false,
        pause_max: Duration::from_secs(60),
        rounds_max: 3,
        health: Health {
            command: std::env::var(HEALTH)
                .ok()
                .filter(|text| !text.is_empty())
                .map(|text| ("/bin/sh".into(), vec!["-c".into(), text.into()])),
            timeout: Duration::from_secs(1),
        },
        no_start: false,
    };
    let look = || Ok((vm(&folder)?, runtime()));
    let migration = Migration {
        context: &context,
        program: PROGRAM,
        vm: VM,
        roles: &folder,
        live: Some(Live {
            hypervisor: &folder,
            keeper: &keeper::launcher(),
        }),
        look: &look,
        runtime: &|| Ok(runtime()),
        fitness: &|| Ok(Vec::new()),
        sync: &sync,
        options: &options,
    };
    match word {
        "migrate" | "live" => job::migrate(&migration),
        "undo" => job::undo_migrate(&migration, false),
        "undo-lost" => job::undo_migrate(&migration, true),
        "failback" => job::failback(&migration, true),
        "failback-only" => job::failback(&migration, false),
        _ => job::sync(&context, &vm(&folder)?, runtime(), &sync).map(drop),
    }
}

fn vm(folder: &Folder) -> Result<SourceVm> {
    let config = folder.read()?.ok_or_else(no_folder)?;
    let text = serde_json::to_string(&config.disks).unwrap_or_default();
    let disks = config.disks.iter().map(|(key, volume)| {
        let path = folder.dir.join(volume);
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        SourceDisk {
            spec: DiskSpec {
                key: key.clone(),
                volume: volume.clone(),
                size,
                used: size,
                format: ImageFormat::Raw,
            },
            source: DiskSource::Path(path),
        }
    });
    Ok(SourceVm {
        program: PROGRAM,
        id: VM.into(),
        name: "swept".into(),
        host: folder.name(),
        identity: Some("the same".into()),
        config: text.clone(),
        described: None,
        config_now: Box::new(move || Ok(text.clone())),
        disks: disks.collect(),
        excluded: Vec::new(),
        notes: Vec::new(),
    })
}

/// There is no QEMU to hold still: to a sync the VM looks as if it were off.
fn runtime() -> VmRuntime {
    VmRuntime {
        state: None,
        qmp: None,
        manager: None,
        agent: None,
        stopped: Box::new(|| Ok(true)),
        launcher: WatchdogLauncher::this_executable(),
    }
}

/// The other host is gone: the replica becomes the VM, and is started.
fn fail_over() -> Result<()> {
    use rblocksync::hypervisor::RoleHypervisor;
    let folder = here().ok_or_else(no_folder)?;
    let layout = Layout::new(state_dir());
    let mut found = list_generations(&layout, Some(VM))?;
    found.retain(|(pair, _)| pair.standing.role == Role::Replica);
    let (pair, _) = found.pop().ok_or_else(no_folder)?;
    let order = TakeOver {
        pair: pair.pair,
        generation: pair.head.unwrap_or(0),
        epoch: pair.standing.epoch + 1,
    };
    take_over(&layout, &folder, &order)?;
    folder.start(VM)
}
