//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ctl;
use crate::gateway;
use crate::operator;
use crate::worker;

/// Runs AI crew jobs, declared as CrewJob resources, on Celery workers.
#[derive(Debug, Parser)]
#[command(name = "crewjob", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator: follow CrewJobs, put them on Redis, scale workers, write results back.
    ///
    /// It uses the Pod's service account or the current kubeconfig context. Several replicas may run: one leads.
    Operator(Box<operator::Config>),

    /// Run a Celery worker that runs a command for each task: no Python needed, on the same queues as Python workers.
    Worker(Box<worker::Config>),

    /// Serve jobs over HTTP: submit, follow, cancel, and Kubernetes' own paths, with the rights of the caller's token or of one
    /// service account.
    Gateway(Box<gateway::Config>),

    /// Run, watch and change CrewJobs, with the rights of your kubeconfig. As `kubectl-crewjob` on the PATH this program is
    /// the plugin `kubectl crewjob`.
    Ctl(Box<ctl::args::Ctl>),

    /// Copy this program into a directory, for an init container that gives it to a container of another image.
    Install {
        /// Where to; it must be there.
        directory: PathBuf,
    },

    /// Print what makes a shell complete the options of this program, such as: source <(crewjob completion bash)
    Completion {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },

    /// Print or install the custom resource definitions.
    #[command(subcommand)]
    Crds(Crds),
}

/// What to do with the definitions.
#[derive(Debug, Subcommand)]
pub enum Crds {
    /// Print them as YAML, ready for `kubectl apply --server-side -f -`.
    Print,

    /// Apply them to the cluster, server-side, and wait until they are established.
    Apply {
        /// A YAML file, a directory of them, or - for standard input. Default: the ones built in.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,

        /// Field manager that owns what is applied; fields of another one are taken over.
        #[arg(long, value_name = "NAME", default_value = "crewjob")]
        field_manager: String,
    },
}
