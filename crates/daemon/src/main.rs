//! `workloadnetd`: puts the rooms together. The only place that knows both the desk and the kernel.

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use daemon::config::Config;
use daemon::desk::Desk;
use daemon::lock::NetworkLock;
use daemon::log::Log;
use daemon::service::{self, Service};
use daemon::tally::{self, Answers};
use daemon::{door, lock, metrics, socket, source};
use kernel::confine::{Files, Needs};
use kernel::linux::Linux;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::DirBuilder;
use std::io::IsTerminal as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

/// How long a daemon that is being replaced may take to end: what runs gets 30 s, then come the farewells.
const PREDECESSOR: Duration = Duration::from_secs(40);
/// How long answers may take to reach their callers once nothing runs any more.
const FAREWELL: Duration = Duration::from_secs(2);

/// Attaches workloads to this node's network and takes them off again.
#[derive(Debug, Parser)]
#[command(name = "workloadnetd", version)]
struct Args {
    /// Settings (TOML); without it, the embedded defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here instead of where the settings say.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep labels, and which addresses are held or cool down, here instead of where the settings say.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write the kernel's settings of networks here instead of where the settings say.
    #[arg(long, value_name = "FOLDER")]
    proc_sys_net: Option<PathBuf>,
    /// Give addresses from this prefix instead of the settings' ones. May be given several times.
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// Say whether the settings can be used, and end.
    #[arg(long)]
    check_config: bool,
    /// Print the settings in force, and end.
    #[arg(long)]
    print_config: bool,
    /// How log lines look. What is logged is chosen by the environment's RUST_LOG.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    match serve(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For people: where in the program it came up is of no use to them.
            eprintln!("workloadnetd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let mut config = settings(args)?;
    if args.print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    if args.check_config {
        println!("the settings can be used");
        return Ok(());
    }
    start_log(args.log_format);
    kernel::heap::give_back_what_is_freed();
    raise_open_files(config.open_files());
    // One thread at the door: every hop to another one costs a wake-up, and the work is done elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (network, listening, told) = runtime.block_on(listen(&config))?;
    // Where clients find the daemon they look for its queue, too.
    if let Some(path) = &listening.path {
        config.socket.path.clone_from(path);
    }
    let linux = Linux::open(config.network.group).context("the kernel cannot be spoken to")?;
    let linux = linux
        .with_settings_at(&config.network.proc_sys_net)
        .context("network.proc_sys_net")?;
    // Before there is a second thread: each has what the one had that started it.
    let (linux, confined) = linux
        .confined(&needs(&config))
        .context("the daemon cannot be confined")?;
    tracing::info!(calls = confined.calls, files = %confined.files, "confined");
    let desk = Desk::open(linux, config.desk()?)?;
    desk.counters().say_confined(tally::Confined {
        calls: confined.calls,
        files: confined.files == Files::Wholly,
    });
    if let Some(path) = &config.routes.peers {
        source::peers::follow(path, Arc::clone(&desk))?;
    }
    if let Some(path) = &config.prefixes.file {
        source::file::follow(path, Arc::clone(&desk))?;
    }
    if config.prefixes.source == source::Kind::Kubernetes {
        source::kubernetes::follow(&config, Arc::clone(&desk))?;
    }
    let outcome = runtime.block_on(run(&config, &network, (listening.listener, told), desk));
    // A thread that waits for the kernel, such as a check's, cannot keep the daemon from ending.
    runtime.shutdown_background();
    // As long as there is a thread of ours that acts, no other daemon does: the kernel lets go of these with the process.
    std::mem::forget((network, listening.lock));
    outcome
}

/// What is written once the daemon serves, the state file and deletions that were carried out: makes those folders, so that they
/// can be named before files below them are all that may be written.
fn needs(config: &Config) -> Needs {
    let files = [&config.network.state, &config.socket.path];
    let mut folders: Vec<PathBuf> = files
        .iter()
        .filter_map(|file| file.parent())
        .map(PathBuf::from)
        .collect();
    folders.retain(|folder| {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        if let Err(error) = &made {
            tracing::warn!(folder = %folder.display(), %error, "nothing will be kept there");
        }
        made.is_ok()
    });
    Needs {
        folders,
        connects: config.prefixes.source == source::Kind::Kubernetes,
    }
}

/// The usual soft limit of 1024 is for programs that use select(2).
fn raise_open_files(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            current
        }
    };
    if let Some(have) = have
        && have < wanted
    {
        tracing::warn!(have, wanted, "fewer files may be open than [limits] may need");
    }
}

/// Takes the locks and listens. A daemon that the service manager replaces is waited for, because its callers wait in the
/// socket meanwhile; any other one is a mistake.
async fn listen(
    config: &Config,
) -> anyhow::Result<(NetworkLock, socket::Listening, Option<metrics::Listener>)> {
    let (owner, group) = config.socket_ids()?;
    let (network, listening) = match socket::activated()? {
        Some(listener) => {
            let network = lock::network(PREDECESSOR).await?;
            (network, socket::take_over(listener, PREDECESSOR).await?)
        }
        None => {
            let network = lock::network(Duration::ZERO).await?;
            (network, socket::listen(&config.socket.path, owner, group).await?)
        }
    };
    // With the locks a predecessor's is gone.
    let told = match &config.metrics.listen {
        Some(at) => Some(metrics::listen(at, owner, group).await?),
        None => None,
    };
    Ok((network, listening, told))
}

fn settings(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Some(path) = &args.socket {
        config.socket.path.clone_from(path);
    }
    if let Some(path) = &args.state {
        config.network.state.clone_from(path);
    }
    if let Some(path) = &args.proc_sys_net {
        config.network.proc_sys_net.clone_from(path);
    }
    if !args.prefixes.is_empty() {
        config.network.prefixes = Some(args.prefixes.clone());
    }
    config.check()?;
    Ok(config)
}

/// The client of the Kubernetes API takes each failed try for an error, where a server that is away is none. Its source says
/// what there is to say, once; who names the client hears all of it.
fn quiet(wanted: &str) -> EnvFilter {
    match wanted.contains("kube_client") {
        true => EnvFilter::new(wanted),
        false => EnvFilter::new(format!("{wanted},kube_client=off")),
    }
}

fn start_log(format: LogFormat) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let (filter, wrong) = match wanted.as_str() {
        "" => (quiet("info"), None),
        wanted => match EnvFilter::try_new(wanted) {
            Ok(_) => (quiet(wanted), None),
            Err(error) => (quiet("info"), Some(error)),
        },
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(Log::new(matches!(format, LogFormat::Json)));
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, RUST_LOG = wanted, "the environment's RUST_LOG is not used");
    }
}

async fn run(
    config: &Config,
    network: &NetworkLock,
    (listener, told): (UnixListener, Option<metrics::Listener>),
    desk: Arc<Desk<Linux>>,
) -> anyhow::Result<()> {
    network.show_credentials()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let service = Service::recovering();
    let (says_ready, recovered) = (service.clone(), Arc::clone(&desk));
    tokio::task::spawn_blocking(move || {
        recovered.wait_until_recovered();
        says_ready.ready(&recovered.unready());
    });
    let asked = Arc::clone(&desk);
    tokio::spawn(service::keep_alive(service.clone(), move || {
        // Where the desk's lock cannot be had, this does not return.
        let desk = Arc::clone(&asked);
        async { tokio::task::spawn_blocking(move || desk.unready()).await.ok() }
    }));
    let answers = Arc::new(Answers::default());
    if let (Some(told), Some(at)) = (told, &config.metrics.listen) {
        tracing::info!(%at, "metrics");
        tokio::spawn(metrics::serve(told, Arc::clone(&desk), Arc::clone(&answers)));
    }
    let allowed = config.allowed()?;
    let stopping = Arc::clone(&desk);
    let stopped = Arc::new(Notify::new());
    let says_stopped = Arc::clone(&stopped);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        service.stopping();
        tracing::info!("stopping: what runs is finished, the datapath stays");
        // While this waits, callers are still told that the daemon is stopping.
        if tokio::task::spawn_blocking(move || stopping.stop())
            .await
            .is_err()
        {
            tracing::error!("the desk did not stop in order");
        }
        says_stopped.notify_one();
    };
    // A client that keeps its connection open cannot keep the daemon from ending.
    let farewell = async {
        stopped.notified().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tracing::info!(socket = %config.socket.path.display(), source = %config.prefixes.source, "listening");
    tokio::select! {
        outcome = door::serve(listener, Arc::clone(&desk), allowed, config.bounds(), answers, stop) => outcome,
        () = farewell => Ok(()),
    }
}
