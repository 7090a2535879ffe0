//! The initramfs: busybox, the guest's first program and the modules it loads.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::kernels::Kernel;
use crate::{cache, process};

/// Needed to reach the host's root.
const EARLY: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// Needed to speak with the host and to use sticks.
const LATE: [&str; 18] = [
    "virtio_console",
    "xhci-pci",
    "sd_mod",
    "usb-storage",
    "uas",
    "vfat",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_ascii",
    "nls_utf8",
    "exfat",
    "ext4",
    "loop",
    "sg",
    "dm-mod",
    "dm-crypt",
    "xts",
    "algif_skcipher",
];
const INIT: &str = include_str!("../../guest/init");

/// Writes the initramfs below `directory` and returns its path.
///
/// # Errors
/// When busybox or a module is missing, or cpio fails.
pub fn build(kernel: &Kernel, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join("initramfs");
    for name in ["bin", "modules", "proc", "sys", "dev", "lower", "cover", "new"] {
        cache::make(&tree.join(name))?;
    }
    let busybox =
        process::find_program("busybox").context("busybox is missing: run `cargo xtask setup`")?;
    std::fs::copy(busybox, tree.join("bin/busybox"))?;
    super::init::write_program(&tree.join("init"), INIT)?;
    let modules = Modules::read(kernel)?;
    let mut loaded = Vec::new();
    for (list, names) in [("early", &EARLY[..]), ("late", &LATE[..])] {
        let mut order = Vec::new();
        for name in names {
            modules.add(name, &mut loaded, &mut order)?;
        }
        let names: String = order
            .iter()
            .map(|path| Ok(unpack(&kernel.modules.join(path), &tree.join("modules"))? + "\n"))
            .collect::<Result<_>>()?;
        std::fs::write(tree.join("modules").join(list), names)?;
    }
    let image = directory.join("initramfs.cpio");
    archive(&tree, &image)?;
    Ok(image)
}

/// `modules.dep` and `modules.builtin` of one kernel.
struct Modules {
    dependencies: String,
    builtin: String,
    release: String,
}

impl Modules {
    fn read(kernel: &Kernel) -> Result<Self> {
        let read = |name: &str| {
            let path = kernel.modules.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            dependencies: read("modules.dep")?,
            builtin: read("modules.builtin").unwrap_or_default(),
            release: kernel.release.clone(),
        })
    }

    /// Appends the module and what it depends on to `order`, dependencies first, unless they are
    /// in `loaded` already or part of the kernel image.
    fn add(&self, name: &str, loaded: &mut Vec<String>, order: &mut Vec<String>) -> Result<()> {
        let entry = self.dependencies.lines().find_map(|line| {
            let (path, needs) = line.split_once(':')?;
            (module_name(path) == canonical(name)).then_some((path, needs))
        });
        let Some((path, needs)) = entry else {
            if self.builtin.lines().any(|path| module_name(path) == canonical(name)) {
                return Ok(());
            }
            bail!("kernel {} has no module {name}", self.release);
        };
        // modules.dep lists the nearest first; the farthest must be loaded first.
        for path in needs.split_whitespace().rev().chain([path]) {
            if !loaded.iter().any(|known| known == path) {
                loaded.push(path.to_owned());
                order.push(path.to_owned());
            }
        }
        Ok(())
    }
}

/// The name that the kernel knows a module file under.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split(".ko").next().unwrap_or(file))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Puts a module, decompressed, into `target`, and returns its file name there.
fn unpack(module: &Path, target: &Path) -> Result<String> {
    let name = module_name(&module.to_string_lossy()) + ".ko";
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => {
            std::fs::copy(module, target.join(&name))
                .with_context(|| format!("cannot copy {}", module.display()))?;
            return Ok(name);
        }
    };
    let result = Command::new(program).arg("-dcq").arg(module).stdin(Stdio::null()).output()?;
    if !result.status.success() {
        bail!("{program} cannot decompress {}", module.display());
    }
    std::fs::write(target.join(&name), result.stdout)?;
    Ok(name)
}

/// Writes the tree as a cpio archive owned by root.
fn archive(tree: &Path, image: &Path) -> Result<()> {
    let mut names = String::from(".\n");
    let mut left = vec![PathBuf::new()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(tree.join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            names.push_str(&format!("{}\n", path.display()));
            if entry.file_type()?.is_dir() {
                left.push(path);
            }
        }
    }
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(std::fs::File::create(image)?)
        .spawn()
        .context("cannot start cpio: run `cargo xtask setup`")?;
    cpio.stdin.take().context("cpio has no stdin")?.write_all(names.as_bytes())?;
    if !cpio.wait()?.success() {
        bail!("cpio cannot write {}", image.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Modules, module_name};

    #[test]
    fn dependencies_come_first_and_once() {
        let modules = Modules {
            dependencies: "a/x-one.ko.xz: b/two.ko.xz c/three.ko.xz\nc/three.ko.xz:\n\
                           d/four.ko.xz: c/three.ko.xz\n"
                .into(),
            builtin: "kernel/sd_mod.ko\n".into(),
            release: "test".into(),
        };
        let (mut loaded, mut order) = (Vec::new(), Vec::new());
        for name in ["x_one", "sd_mod", "four"] {
            assert!(modules.add(name, &mut loaded, &mut order).is_ok(), "{name}");
        }
        assert_eq!(order, ["c/three.ko.xz", "b/two.ko.xz", "a/x-one.ko.xz", "d/four.ko.xz"]);
        assert!(modules.add("absent", &mut loaded, &mut order).is_err());
    }

    #[test]
    fn names_are_what_the_kernel_calls_them() {
        for (path, name) in
            [("kernel/a/nls_iso8859-1.ko.zst", "nls_iso8859_1"), ("9p.ko", "9p"), ("x", "x")]
        {
            assert_eq!(module_name(path), name);
        }
    }
}
