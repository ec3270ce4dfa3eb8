//! Which server programs this machine has.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server program: what it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKind {
    name: String,
    version: String,
    program: PathBuf,
}

/// Something that not every server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// `CLUSTER MIGRATESLOTS`, whole ranges at once.
    AtomicSlotMigration,
    /// `CLIENT CAPA redirect`.
    ClientCapa,
    /// `CLIENT SETINFO`.
    ClientSetInfo,
    /// `SENTINEL FAILOVER name COORDINATED`.
    CoordinatedFailover,
    /// Runs as a sentinel.
    Sentinel,
    /// `CLUSTER MIGRATION IMPORT`, whole ranges at once.
    SlotImport,
}

impl ServerKind {
    /// Asks `program` for its version.
    ///
    /// # Errors
    ///
    /// The reason in words when it does not run or does not say what it is.
    pub fn probe(program: &Path) -> Result<Self, String> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .map_err(|error| format!("{} does not run: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=..."
        let name = text.split_whitespace().next().map(str::to_ascii_lowercase);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        match (name, version) {
            (Some(name), Some(version)) => {
                Ok(Self { name, version: version.to_owned(), program: program.to_owned() })
            }
            _ => Err(format!("{} --version does not name a server and its version", program.display())),
        }
    }

    /// Returns `redis`, `valkey` or `redict`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the version, such as `7.0.15`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns major and minor version.
    pub fn release(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Returns the path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns whether this server can do it, by its name and version.
    pub fn has(&self, feature: Feature) -> bool {
        let valkey = self.name == "valkey";
        match feature {
            Feature::AtomicSlotMigration | Feature::CoordinatedFailover => valkey && self.release() >= (9, 0),
            Feature::ClientCapa => valkey,
            Feature::ClientSetInfo => self.release() >= (7, 2),
            Feature::SlotImport => self.name == "redis" && self.release() >= (8, 4),
            Feature::Sentinel => matches!(self.name.as_str(), "redis" | "redict" | "valkey"),
        }
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A server program that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedServer {
    /// Its path.
    pub program: PathBuf,
    /// Why.
    pub reason: String,
}

/// The servers found on this machine.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    kinds: Vec<ServerKind>,
    skipped: Vec<SkippedServer>,
    switched_off: bool,
}

impl Servers {
    /// Looks for server programs, in the order of the table in [`launcher`](super).
    ///
    /// Runs each with `--version`. Of two with the same name and version the first is kept.
    pub fn discover() -> Self {
        if let Some(list) = env::var_os("EVENKEEL_TEST_SERVERS") {
            let programs: Vec<_> =
                env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
            return Self { switched_off: programs.is_empty(), ..Self::probe_all(programs) };
        }
        Self::discover_with(servers_dir())
    }

    /// Looks for server programs as [`discover`](Self::discover) does, with `folder` in place of `EVENKEEL_SERVERS_DIR`
    /// and without a look at `EVENKEEL_TEST_SERVERS`.
    pub fn discover_in(folder: &Path) -> Self {
        Self::discover_with(Some(folder.to_owned()))
    }

    fn discover_with(folder: Option<PathBuf>) -> Self {
        let named = env::var_os("EVENKEEL_REDIS_SERVER").filter(|path| !path.is_empty());
        let mut programs: Vec<_> = named.map(PathBuf::from).into_iter().collect();
        programs.extend(find_in_path("redis-server"));
        programs.extend(find_in_path("valkey-server"));
        programs.extend(folder.into_iter().flat_map(|folder| programs_under(&folder)));
        Self::probe_all(programs)
    }

    fn probe_all(programs: Vec<PathBuf>) -> Self {
        let mut found = Self::default();
        for program in programs {
            match ServerKind::probe(&program) {
                Ok(kind) => {
                    let known = |other: &ServerKind| other.name == kind.name && other.version == kind.version;
                    if !found.kinds.iter().any(known) {
                        found.kinds.push(kind);
                    }
                }
                Err(reason) => found.skipped.push(SkippedServer { program, reason }),
            }
        }
        found
    }

    /// Returns the servers that can be used.
    pub fn kinds(&self) -> &[ServerKind] {
        &self.kinds
    }

    /// Returns the first server that is a Redis, or else the first of all.
    pub fn preferred(&self) -> Option<&ServerKind> {
        self.kinds.iter().find(|kind| kind.name == "redis").or_else(|| self.kinds.first())
    }

    /// Returns the programs that were found and do not work.
    pub fn skipped(&self) -> &[SkippedServer] {
        &self.skipped
    }

    /// Returns whether `EVENKEEL_TEST_SERVERS` is set and empty: tests are to do without servers.
    pub fn are_switched_off(&self) -> bool {
        self.switched_off
    }
}

/// Returns the folder whose `*/bin/server` programs are used: `EVENKEEL_SERVERS_DIR`, or `target/servers` of the nearest
/// parent folder that has one.
fn servers_dir() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("EVENKEEL_SERVERS_DIR").filter(|folder| !folder.is_empty()) {
        return Some(PathBuf::from(folder));
    }
    let here = env::current_dir().ok()?;
    here.ancestors().map(|parent| parent.join("target/servers")).find(|folder| folder.is_dir())
}

fn programs_under(folder: &Path) -> Vec<PathBuf> {
    let mut programs: Vec<_> = folder
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/server"))
        .filter(|program| program.is_file())
        .collect();
    programs.sort();
    programs
}

pub(super) fn find_in_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|file| file.is_file())
}
