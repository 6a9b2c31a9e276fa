//! Opens a page in the browser of the current user, where there is one.

use std::path::Path;
use std::process::{Command, Stdio};

use url::Url;

use crate::cli::output::style::Env;

/// How a page is opened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `xdg-open`, as on any Linux desktop.
    Desktop,
    /// `open` of macOS.
    Mac,
    /// PowerShell of the Windows around WSL. Its file manager would open for other commands.
    Wsl,
}

impl Launcher {
    /// Returns the launcher for this machine; `None` on a remote shell, in a container and where there is no desktop.
    pub fn here(env: &Env<'_>) -> Option<Self> {
        let is_container = ["/.dockerenv", "/run/.containerenv"]
            .iter()
            .any(|path| Path::new(path).exists());
        Self::of(
            env,
            cfg!(target_os = "macos"),
            is_container,
            env("WSL_DISTRO_NAME").is_some() || Path::new("/proc/sys/fs/binfmt_misc/WSLInterop").exists(),
        )
    }

    fn of(env: &Env<'_>, is_mac: bool, is_container: bool, is_wsl: bool) -> Option<Self> {
        let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
        let is_remote = ["SSH_CONNECTION", "SSH_TTY", "KUBERNETES_SERVICE_HOST"]
            .into_iter()
            .any(is_set);
        if is_remote || is_container {
            None
        } else if is_mac {
            Some(Self::Mac)
        } else if is_wsl {
            Some(Self::Wsl)
        } else {
            ["DISPLAY", "WAYLAND_DISPLAY"]
                .into_iter()
                .any(is_set)
                .then_some(Self::Desktop)
        }
    }

    /// Starts the browser. Whether a page appears cannot be known: launchers succeed without one, so the address has to be printed
    /// in any case.
    pub fn open(self, page: &Url) {
        let page = page.as_str();
        let mut command = match self {
            Self::Desktop => Command::new("xdg-open"),
            Self::Mac => Command::new("open"),
            Self::Wsl => {
                let mut command = Command::new("powershell.exe");
                // The address has no quotation marks: `Url` encodes them.
                command.args(["-NoProfile", "-NonInteractive", "-Command", "Start-Process"]);
                command.arg(format!("'{}'", page.replace('\'', "%27")));
                return start(&mut command);
            }
        };
        start(command.arg(page));
    }
}

/// Starts a program whose output would otherwise land between ours. It is not waited for: some launchers stay until the browser
/// ends.
fn start(command: &mut Command) {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = quiet.spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[&str], is_mac: bool, is_container: bool, is_wsl: bool) -> Option<Launcher> {
        let env = |name: &str| variables.contains(&name).then(|| "1".to_owned());
        Launcher::of(&env, is_mac, is_container, is_wsl)
    }

    #[test]
    fn browser_is_opened_only_on_a_desktop_of_this_machine() {
        assert_eq!(chosen(&[], false, false, false), None);
        assert_eq!(chosen(&["DISPLAY"], false, false, false), Some(Launcher::Desktop));
        assert_eq!(
            chosen(&["WAYLAND_DISPLAY"], false, false, false),
            Some(Launcher::Desktop)
        );
        assert_eq!(chosen(&["DISPLAY", "SSH_TTY"], false, false, false), None);
        assert_eq!(chosen(&["DISPLAY"], false, true, false), None);
        assert_eq!(chosen(&[], true, false, false), Some(Launcher::Mac));
        assert_eq!(chosen(&[], false, false, true), Some(Launcher::Wsl));
        assert_eq!(chosen(&["SSH_CONNECTION"], true, false, true), None);
    }
}
