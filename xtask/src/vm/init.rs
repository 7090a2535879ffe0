//! What the guest finds in the directory it shares with the host.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::Request;
use crate::cache;
use crate::setup::kernels::Kernel;

/// Where the guest mounts the shared directory.
pub const SHARE: &str = "/run/sekimori-vm";
/// Where it mounts our programs.
const PROGRAMS: &str = "/run/sekimori-programs";
const BOOT: &str = include_str!("../../guest/sekimori-boot");
const STICK: &str = include_str!("../../guest/sekimori-stick");
const BEFORE: &str = include_str!("../../guest/sekimori-before");
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills the shared directory for one run.
///
/// # Errors
/// When it cannot be written.
pub fn write_share(share: &Path, request: &Request, kernel: &Kernel) -> Result<()> {
    let bin = share.join("bin");
    cache::make(&bin)?;
    write_program(&bin.join("sekimori-boot"), BOOT)?;
    write_program(&bin.join("sekimori-stick"), STICK)?;
    if let Some(policy) = &request.policy {
        std::fs::copy(policy, share.join("policy.yaml"))
            .with_context(|| format!("cannot read {}", policy.display()))?;
        write_program(&bin.join("sekimori-before"), BEFORE)?;
    }
    write_program(&bin.join("sekimori-command"), &command_script(&request.command))?;
    let sticks: Vec<_> = request.sticks.iter().map(|stick| stick.serial.as_str()).collect();
    let mount = request.mount.as_ref().map(|path| path.to_string_lossy().into_owned());
    let settings = [
        ("PATH", format!("{PROGRAMS}:{SHARE}/bin:{SYSTEM_PATH}")),
        ("modules", kernel.modules.display().to_string()),
        ("guest_name", "sekimori-guest".to_owned()),
        ("sticks", sticks.join(" ")),
        ("mount_at", mount.unwrap_or_default()),
        ("interactive", if request.interactive() { "yes" } else { "no" }.to_owned()),
    ];
    let text: String =
        settings.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect();
    std::fs::write(share.join("settings"), text)?;
    Ok(())
}

/// Writes an executable file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A script that becomes the command, or a shell when there is none.
fn command_script(command: &[String]) -> String {
    let words: Vec<_> = command.iter().map(|word| quoted(word)).collect();
    let line = if words.is_empty() { "/bin/bash -i".to_owned() } else { words.join(" ") };
    format!("#!/bin/sh\nexec {line}\n")
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{command_script, quoted};

    #[test]
    fn the_shell_gives_back_what_was_quoted() {
        for word in ["", "a b", "it's", "$(x) `y` \\ \"", "社外秘", "-n\n*"] {
            let script = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").arg("-c").arg(script).output();
            let printed = output.map(|output| output.stdout).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&printed), word);
        }
    }

    #[test]
    fn no_command_means_a_shell() {
        assert_eq!(command_script(&[]), "#!/bin/sh\nexec /bin/bash -i\n");
        assert_eq!(command_script(&["a".into(), "b c".into()]), "#!/bin/sh\nexec 'a' 'b c'\n");
    }
}
