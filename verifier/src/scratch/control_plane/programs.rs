//! The programs of a control plane: where they are and what version they have.
//!
//! The controller manager is looked for beside the API server only: of another version it may not
//! understand that server.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::super::Error;

const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// Searched last: where envtest's archives are unpacked to, and where distributions put programs.
const USUAL_FOLDERS: [&str; 2] = ["/usr/local/kubebuilder/bin", "/usr/bin"];

/// How long a program may take to print its version: seconds when it is read from a cold disk.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// The programs that a control plane is started from.
#[derive(Debug, Clone)]
pub struct Programs {
    /// etcd, 3.4 or newer.
    pub etcd: PathBuf,
    /// The API server, 1.20 or newer.
    pub kube_apiserver: PathBuf,
    /// The controller manager, of the same version; without it garbage collection is not judged.
    pub kube_controller_manager: Option<PathBuf>,
}

impl Programs {
    /// Finds the programs in the folder named by `KUBEBUILDER_ASSETS`, then in `PATH`.
    ///
    /// # Errors
    /// When etcd or the API server is in none of the folders.
    pub fn find() -> Result<Self, Error> {
        Self::find_in(&folders(env::var_os(ASSETS_VARIABLE), env::var_os("PATH")))
    }

    fn find_in(folders: &[PathBuf]) -> Result<Self, Error> {
        let kube_apiserver = find("kube-apiserver", folders)?;
        let beside = kube_apiserver.with_file_name("kube-controller-manager");
        Ok(Self {
            etcd: find("etcd", folders)?,
            kube_controller_manager: beside.is_file().then_some(beside),
            kube_apiserver,
        })
    }
}

fn folders(assets: Option<OsString>, path: Option<OsString>) -> Vec<PathBuf> {
    let path = path.unwrap_or_default();
    let usual = USUAL_FOLDERS.map(PathBuf::from);
    let all = assets.map(PathBuf::from).into_iter();
    all.chain(env::split_paths(&path)).chain(usual).collect()
}

fn find(program: &'static str, folders: &[PathBuf]) -> Result<PathBuf, Error> {
    let candidates = folders.iter().map(|folder| folder.join(program));
    let mut found = candidates.filter(|candidate| candidate.is_file());
    found.next().ok_or_else(|| Error::ProgramMissing { program, searched: listed(folders) })
}

fn listed(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    names.join(", ")
}

/// A Kubernetes release, as far as command lines differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    const OLDEST: Self = Self::new(1, 20);

    pub(super) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Asks a Kubernetes program for its version.
    pub(super) async fn of(program: &Path) -> Result<Self, Error> {
        Self::from_output(program, version_output(program).await?)
    }

    fn from_output(program: &Path, output: String) -> Result<Self, Error> {
        let path = program.to_owned();
        match Self::parse(&output) {
            None => Err(Error::VersionUnknown { path, output }),
            Some(version) if version < Self::OLDEST => Err(Error::VersionTooOld { path, version: version.to_string() }),
            Some(version) => Ok(version),
        }
    }

    /// Reads `Kubernetes v1.36.0-rc.1`.
    fn parse(output: &str) -> Option<Self> {
        let mut numbers = output.trim().strip_prefix("Kubernetes v")?.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

async fn version_output(program: &Path) -> Result<String, Error> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let unknown = |output| Error::VersionUnknown { path: program.to_owned(), output };
    let output = timeout(VERSION_DEADLINE, output)
        .await
        .map_err(|_| unknown("--version printed nothing in time".to_owned()))?
        .map_err(Error::run(program))?;
    if !output.status.success() {
        return Err(unknown(format!("--version ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder_with(programs: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for program in programs {
            fs::write(folder.path().join(program), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_assets_folder_goes_before_the_path() {
        let assets = folder_with(&["etcd", "kube-apiserver"]);
        let path = folder_with(&["etcd", "kube-apiserver", "kube-controller-manager"]);
        let folders = folders(Some(assets.path().into()), Some(path.path().as_os_str().to_owned()));
        let programs = Programs::find_in(&folders).unwrap();
        assert_eq!(programs.etcd, assets.path().join("etcd"));
        assert_eq!(programs.kube_apiserver, assets.path().join("kube-apiserver"));
        assert_eq!(programs.kube_controller_manager, None);
    }

    #[test]
    fn each_program_may_be_in_another_folder() {
        let first = folder_with(&["etcd"]);
        let second = folder_with(&["kube-apiserver", "kube-controller-manager"]);
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let programs = Programs::find_in(&folders).unwrap();
        assert_eq!(programs.etcd, first.path().join("etcd"));
        let beside = second.path().join("kube-controller-manager");
        assert_eq!(programs.kube_controller_manager, Some(beside));
    }

    #[test]
    fn a_missing_program_is_named_with_the_folders_searched() {
        let folder = folder_with(&["kube-apiserver"]);
        let error = Programs::find_in(&[folder.path().to_owned()]).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("etcd was not found"), "{message}");
        assert!(message.contains(&folder.path().display().to_string()));
        assert!(message.contains("--scratch embedded"));
    }

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        let parsed = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(parsed("Kubernetes v1.20.2\n").as_deref(), Some("1.20"));
        assert_eq!(parsed("Kubernetes v1.36.0-rc.1+a1b2").as_deref(), Some("1.36"));
        assert_eq!(parsed("etcd Version: 3.4.23"), None);
        assert_eq!(parsed("Kubernetes v1.x"), None);
    }

    #[tokio::test]
    async fn a_program_that_is_no_kubernetes_is_named() {
        let error = Version::of(Path::new("/bin/false")).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains("/bin/false") && message.contains("exit status: 1"), "{message}");
    }

    #[test]
    fn a_server_too_old_to_start_is_refused() {
        let version = |text: &str| Version::from_output(Path::new("/opt/kube-apiserver"), text.to_owned());
        let error = version("Kubernetes v1.19.4").unwrap_err();
        assert!(error.to_string().contains("/opt/kube-apiserver is Kubernetes 1.19"), "{error}");
        assert!(version("Kubernetes v1.20.0").is_ok());
    }
}
