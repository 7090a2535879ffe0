//! QEMU: its command line, and its life as our child.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::Stick;
use super::qmp;
use crate::process;
use crate::setup::kernels::Kernel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The order ends in bpf, as on the distributions' own command lines.
const KERNEL_OPTIONS: &str =
    "console=ttyS0 quiet panic=-1 lsm=landlock,lockdown,yama,bpf random.trust_cpu=on rdinit=/init";

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Accelerator {
    /// QEMU's translator: works everywhere.
    #[default]
    Tcg,
    /// QEMU's translator with one CPU whose clock counts: one instruction is one nanosecond.
    Count,
    /// The host's KVM; the translator is used when the guest does not come up.
    Kvm,
}

/// Everything that goes into the command line.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What boots.
    pub kernel: &'a Kernel,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// The run's directory: sockets, logs, images.
    pub directory: &'a Path,
    /// The directory that the guest may write to.
    pub share: PathBuf,
    /// The directory with our programs, which the guest may only read.
    pub programs: &'a Path,
    /// Sticks that are plugged from the start; their images exist.
    pub sticks: &'a [Stick],
    /// What executes it.
    pub accelerator: Accelerator,
    /// Whether the guest's console is our terminal.
    pub interactive: bool,
}

/// A running QEMU and its sockets. Dropping it ends the guest.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    /// What the command writes to stdout.
    pub output: UnixStream,
    /// What the command writes to stderr.
    pub errors: UnixStream,
    /// What the guest asks of the host.
    pub control: UnixStream,
    /// QEMU's own control socket.
    pub qmp: UnixStream,
}

impl Machine<'_> {
    /// A directory of the guest's own on this machine.
    fn shelf(&self) -> PathBuf {
        self.directory.join("shelf")
    }

    /// Where the kernel's messages go.
    #[must_use]
    pub fn kernel_log(&self) -> PathBuf {
        self.directory.join("kernel.log")
    }

    /// Starts QEMU and connects to it.
    ///
    /// # Errors
    /// When QEMU cannot be started or ends at once; what it said is in the error.
    pub fn start(&self) -> Result<Qemu> {
        crate::cache::make(&self.shelf())?;
        let listen = |name: &str| -> Result<UnixListener> {
            let path = self.directory.join(name);
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path)
                .with_context(|| format!("cannot listen on {}", path.display()))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let [output, errors, control, qmp] = ["output", "errors", "control", "qmp"].map(listen);
        let log = std::fs::File::create(self.directory.join("qemu.log"))?;
        let mut command = self.command();
        command.stdin(if self.interactive { Stdio::inherit() } else { Stdio::null() });
        command.stdout(if self.interactive { Stdio::inherit() } else { Stdio::null() });
        let mut child =
            command.stderr(log).spawn().context("cannot start QEMU: run `cargo xtask setup`")?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut accept = |listener: Result<UnixListener>| match listener {
            Ok(listener) => self.accept(&listener, &mut child, deadline),
            Err(error) => Err(error),
        };
        let sockets = [output, errors, control, qmp].map(&mut accept);
        let [Ok(output), Ok(errors), Ok(control), Ok(qmp)] = sockets else {
            let _ = child.kill();
            let _ = child.wait();
            let why = sockets.into_iter().find_map(Result::err);
            return Err(why.unwrap_or_else(|| anyhow::anyhow!("QEMU did not connect")));
        };
        Ok(Qemu { child, output, errors, control, qmp })
    }

    fn accept(
        &self,
        listener: &UnixListener,
        child: &mut Child,
        deadline: Instant,
    ) -> Result<UnixStream> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(self.directory.join("qemu.log"));
                bail!("QEMU ended with {status}: {}", said.unwrap_or_default().trim());
            }
            if Instant::now() > deadline {
                bail!("QEMU did not connect within {} s", CONNECT_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn command(&self) -> Command {
        // setpriv ends QEMU when we are killed, however that happens.
        let mut command = match process::find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
                command
            }
            None => Command::new("qemu-system-x86_64"),
        };
        let (accelerator, cpu, cpus) = match self.accelerator {
            // One thread for both CPUs. With a thread for each, a CPU can run into code that another
            // has just patched: "Oops: int3" when programs are put on hooks of a busy kernel
            // (seen on 6.12; reported to the kernel list in July 2023 for LTP on qemu-x86_64).
            // Neither "rep movsb" for all copies, which is translated byte by byte, nor page tables
            // of five levels: a quarter less time.
            Accelerator::Tcg => ("tcg,thread=single", "max,-erms,-fsrm,-la57", "2"),
            Accelerator::Count => ("tcg", "max", "1"),
            Accelerator::Kvm => ("kvm", "host", "2"),
        };
        if self.accelerator == Accelerator::Count {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", accelerator, "-cpu", cpu, "-smp", cpus, "-m", "2G"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", KERNEL_OPTIONS])
            .arg("-serial")
            .arg(format!("file:{}", self.kernel_log().display()))
            .args(["-device", "virtio-serial-pci"]);
        for name in ["output", "errors", "control"] {
            let path = self.directory.join(name);
            command.arg("-chardev").arg(format!("socket,id={name},path={}", path.display()));
            command
                .args(["-device", &format!("virtserialport,chardev={name},name=sekimori.{name}")]);
        }
        command.arg("-qmp").arg(format!("unix:{}", self.directory.join("qmp").display()));
        if self.interactive {
            command.args(["-chardev", "stdio,id=terminal,signal=off"]);
            command.args(["-device", "virtconsole,chardev=terminal,name=sekimori.terminal"]);
        }
        self.add_file_systems(&mut command);
        self.add_sticks(&mut command);
        Self::add_card_slot(&mut command);
        // An optical drive with nothing in it.
        command.args(["-device", "ide-cd"]);
        command
    }

    fn add_file_systems(&self, command: &mut Command) {
        command.args([
            "-fsdev",
            "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device",
            "virtio-9p-pci,fsdev=root,mount_tag=root",
        ]);
        let others = [
            ("share", self.share.as_path(), "off"),
            ("programs", self.programs, "on"),
            // What scenarios mount by themselves, as files of another machine.
            ("shelf", &self.shelf(), "off"),
        ];
        for (name, path, read_only) in others {
            let path = path.display();
            command.arg("-fsdev").arg(format!(
                "local,id={name},path={path},security_model=none,readonly={read_only},\
                 multidevs=remap"
            ));
            command.args(["-device", &format!("virtio-9p-pci,fsdev={name},mount_tag={name}")]);
        }
    }

    /// A card slot, with nothing in it.
    fn add_card_slot(command: &mut Command) {
        command.args(["-device", "sdhci-pci"]);
        command.args(["-drive", &format!("if=none,id={}", qmp::CARD)]);
        command.args(["-device", &format!("sd-card,id={0},drive={0}", qmp::CARD)]);
    }

    fn add_sticks(&self, command: &mut Command) {
        command.args(["-device", "qemu-xhci,id=usb,p2=15,p3=15"]);
        for Stick { serial, .. } in self.sticks {
            let image = Stick::path(self.directory, serial);
            command.arg("-blockdev").arg(qmp::blockdev(serial, &image).to_string());
            command.arg("-device").arg(format!(
                "usb-storage,bus=usb.0,id={},drive={},serial={serial},removable=on",
                qmp::device_id(serial),
                qmp::node_name(serial),
            ));
        }
    }
}

impl Qemu {
    /// Whether the guest has ended.
    ///
    /// # Errors
    /// When the child cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
