//! What came and went.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use sekimori_proto::v1::{Device, Operation};

use super::sysfs::{IMAGING, STORAGE, entries, is_interface, read};

/// Devices that are remembered at one time.
const PLUGGED_MAX: usize = 1 << 10;
/// `bDeviceClass` of hubs.
const HUB: &str = "09";

/// A device came or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `Plug` or `Unplug`.
    pub operation: Operation,
    /// It was there when the agent looked for the first time.
    pub late: bool,
    /// What it is.
    pub device: Device,
}

/// The devices that are plugged in: USB devices other than hubs, and memory cards.
#[derive(Debug, Default)]
pub struct Plugged {
    known: BTreeMap<PathBuf, Known>,
    looked: bool,
}

#[derive(Debug)]
struct Known {
    device: Device,
    /// The number that the bus gave it; each device gets a new one.
    number: String,
}

impl Known {
    /// It was not exchanged. What it is for can change.
    fn same(&self, other: &Self) -> bool {
        let facts = |it: &Self| {
            let device = &it.device;
            (device.vendor.clone(), device.product.clone(), device.serial.clone())
        };
        self.number == other.number && facts(self) == facts(other)
    }
}

impl Plugged {
    /// Looks at the sysfs that is mounted at `sys`; answers what changed since the last look.
    pub fn look(&mut self, sys: &Path) -> Vec<Change> {
        let now = plugged(sys);
        let late = !std::mem::replace(&mut self.looked, true);
        let before = std::mem::replace(&mut self.known, now);
        let now = &self.known;
        // Another device at the same place is another device.
        let same = |one: Option<&Known>, other: &Known| one.is_some_and(|it| it.same(other));
        let gone = before.iter().filter(|(at, known)| !same(now.get(*at), known));
        let come = now.iter().filter(|(at, known)| !same(before.get(*at), known));
        let change = |operation, late, known: &Known| {
            let device = known.device.clone();
            Change { operation, late, device }
        };
        gone.map(|(_, known)| change(Operation::Unplug, false, known))
            .chain(come.map(|(_, known)| change(Operation::Plug, late, known)))
            .collect()
    }
}

fn plugged(sys: &Path) -> BTreeMap<PathBuf, Known> {
    let usb = entries(&sys.join("bus/usb/devices")).unwrap_or_default();
    let usb = usb.into_iter().filter(|at| !is_interface(at) && !is_hub(at)).filter_map(|at| {
        let device = usb_device(&at)?;
        Some((at, device))
    });
    let cards = entries(&sys.join("bus/mmc/devices")).unwrap_or_default();
    let cards = cards.into_iter().filter_map(|at| {
        let device = card(&at)?;
        Some((at, device))
    });
    let known = usb.chain(cards).take(PLUGGED_MAX).map(|(at, device)| {
        let number = read(&at, "devnum").unwrap_or_default();
        (at, Known { device, number })
    });
    known.collect()
}

fn is_hub(at: &Path) -> bool {
    read(at, "bDeviceClass").is_some_and(|class| class == HUB)
}

/// A USB device by its descriptors; `None` while its interfaces are not all there yet. The kernel
/// announces each of them.
fn usb_device(at: &Path) -> Option<Device> {
    let text = |name| read(at, name).unwrap_or_default();
    let interfaces = entries_within(at);
    let expected: usize = text("bNumInterfaces").trim().parse().unwrap_or(0);
    let allowed = text("authorized") != "0";
    if allowed && (interfaces.len() < expected || text("bConfigurationValue").is_empty()) {
        return None;
    }
    let mut functions: Vec<String> =
        interfaces.iter().map(|interface| function(interface).to_owned()).collect();
    functions.sort();
    functions.dedup();
    Some(Device {
        class: "usb".to_owned(),
        vendor: text("idVendor"),
        product: text("idProduct"),
        serial: text("serial"),
        port: name_of(at),
        vendor_name: text("manufacturer"),
        product_name: text("product"),
        functions,
        ..Device::default()
    })
}

/// A memory card; soldered memory is none.
fn card(at: &Path) -> Option<Device> {
    if read(at, "type")? == "MMC" {
        return None;
    }
    Some(Device {
        class: "sd".to_owned(),
        serial: read(at, "serial").unwrap_or_default(),
        port: name_of(at),
        product_name: read(at, "name").unwrap_or_default(),
        functions: vec!["storage".to_owned()],
        ..Device::default()
    })
}

/// The directories of its interfaces.
fn entries_within(at: &Path) -> Vec<PathBuf> {
    let inside = at.read_dir().map(|inside| inside.flatten().map(|entry| entry.path()));
    inside.into_iter().flatten().filter(|path| is_interface(path)).collect()
}

/// What an interface is for (usb.org, "Defined Class Codes"; CDC subclasses of CDC 1.2, table 4).
fn function(interface: &Path) -> &'static str {
    let text = |name| read(interface, name).unwrap_or_default();
    match text("bInterfaceClass").as_str() {
        "01" => "audio",
        "02" if text("bInterfaceSubClass") == "02" => "serial",
        "02" | "0a" => "network",
        "03" => "input",
        IMAGING => "imaging",
        "07" => "printer",
        STORAGE => "storage",
        "0b" => "smart-card",
        "0e" => "video",
        "e0" => "wireless",
        _ => "other",
    }
}

fn name_of(at: &Path) -> String {
    at.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn device(sys: &Path, port: &str, serial: &str, interfaces: &[(&str, &str)]) {
        let at = sys.join("devices").join(port);
        fs::create_dir_all(&at).unwrap();
        fs::create_dir_all(sys.join("bus/usb/devices")).unwrap();
        for (name, value) in
            [("idVendor", "0951"), ("idProduct", "1666"), ("serial", serial), ("product", "棒")]
                .into_iter()
                .chain([("bConfigurationValue", "1"), ("bNumInterfaces", " 1")])
        {
            fs::write(at.join(name), format!("{value}\n")).unwrap();
        }
        for (number, (class, subclass)) in interfaces.iter().enumerate() {
            let interface = at.join(format!("{port}:1.{number}"));
            fs::create_dir_all(&interface).unwrap();
            fs::write(interface.join("bInterfaceClass"), format!("{class}\n")).unwrap();
            fs::write(interface.join("bInterfaceSubClass"), format!("{subclass}\n")).unwrap();
        }
        symlink(&at, sys.join("bus/usb/devices").join(port)).unwrap();
    }

    fn pull(sys: &Path, port: &str) {
        fs::remove_file(sys.join("bus/usb/devices").join(port)).unwrap();
        fs::remove_dir_all(sys.join("devices").join(port)).unwrap();
    }

    fn said(changes: &[Change]) -> Vec<(Operation, bool, &str, &str)> {
        let say = |it: &Change| (it.operation, it.late);
        changes
            .iter()
            .map(|it| {
                let (operation, late) = say(it);
                (operation, late, it.device.port.as_str(), it.device.serial.as_str())
            })
            .collect()
    }

    #[test]
    fn what_came_and_went() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        let mut plugged = Plugged::default();
        device(sys, "1-1", "A", &[("08", "06")]);
        assert_eq!(said(&plugged.look(sys)), [(Operation::Plug, true, "1-1", "A")]);
        assert_eq!(plugged.look(sys), []);
        // The same model with the same serial, in another port.
        device(sys, "1-2", "A", &[("08", "06")]);
        assert_eq!(said(&plugged.look(sys)), [(Operation::Plug, false, "1-2", "A")]);
        pull(sys, "1-1");
        assert_eq!(said(&plugged.look(sys)), [(Operation::Unplug, false, "1-1", "A")]);
        // Exchanged between two looks.
        pull(sys, "1-2");
        device(sys, "1-2", "B", &[("08", "06")]);
        let changes = plugged.look(sys);
        let expected =
            [(Operation::Unplug, false, "1-2", "A"), (Operation::Plug, false, "1-2", "B")];
        assert_eq!(said(&changes), expected);
    }

    #[test]
    fn a_device_comes_with_its_interfaces() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        let mut plugged = Plugged::default();
        device(sys, "1-1", "A", &[]);
        assert_eq!(plugged.look(sys), []);
        let interface = sys.join("devices/1-1/1-1:1.0");
        fs::create_dir(&interface).unwrap();
        fs::write(interface.join("bInterfaceClass"), "08\n").unwrap();
        assert_eq!(said(&plugged.look(sys)), [(Operation::Plug, false, "1-1", "A")]);
        // One that may not be used has none.
        device(sys, "1-2", "B", &[]);
        fs::write(sys.join("devices/1-2/authorized"), "0\n").unwrap();
        assert_eq!(said(&plugged.look(sys)), [(Operation::Plug, false, "1-2", "B")]);
    }

    #[test]
    fn what_a_device_is_for() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        device(sys, "1-3", "", &[("02", "02"), ("0a", "00"), ("03", "01"), ("03", "01")]);
        let changes = Plugged::default().look(sys);
        let device = &changes.first().unwrap().device;
        assert_eq!(device.functions, ["input", "network", "serial"]);
        assert_eq!(device.product_name, "棒");
    }
}
