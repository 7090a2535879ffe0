//! One look at sysfs.
//!
//! The links in `/sys/class` lead to where a device stands, and each directory above is a device
//! that it hangs on: `…/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host2/…/block/sda/sda1`. A block
//! device that is made of others (dm-crypt, LVM, RAID) names them in its directory `slaves`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use sekimori_abi::event::{Device, device_class};
use sekimori_abi::limits::{DEVICE_NODES_MAX, SERIAL_BYTES_MAX};
use sekimori_abi::table::NODE_IS_CHARACTER;

use super::sysfs::{IMAGING, STORAGE, entries, is_interface, read};

/// Layers of block devices that stand on one another.
const LAYERS_MAX: usize = 8;
/// Classes of a manufacturer's own: subclass and protocol of adb and fastboot
/// (android.googlesource.com, `ADB_SUBCLASS` and its neighbours in adb.h and fastboot's usb code).
const VENDOR: &str = "ff";
const ANDROID: (&str, [&str; 2]) = ("42", ["01", "03"]);

/// Types of SCSI devices that are drives for optical discs (SPC-4, table 139).
const OPTICAL: [&str; 2] = ["4", "5"];

/// What is plugged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// There is any, apart from optical drives that only read; true too when nothing can be read.
    pub plugged: bool,
    /// Nodes that lead to removable media, by kernel device number and `NODE_IS_CHARACTER`, each
    /// once.
    pub nodes: Vec<(u64, Device)>,
}

/// Looks at the sysfs that is mounted at `sys`, and the procfs at `proc`.
#[must_use]
pub fn survey(sys: &Path, proc: &Path) -> Survey {
    let mut found = Survey::default();
    match entries(&sys.join("class/block")) {
        Some(devices) => {
            for device in devices {
                if let Some(known) = removable_block(&device, 0) {
                    found.add(0, &device, known, proc);
                }
            }
        }
        None => found.plugged = true,
    }
    // Commands to a disk without its file system go through these.
    for class in ["class/scsi_generic", "class/bsg"] {
        for device in entries(&sys.join(class)).unwrap_or_default() {
            if let Some(known) = removable(&device) {
                found.add(NODE_IS_CHARACTER, &device, known, proc);
            }
        }
    }
    for device in entries(&sys.join("bus/usb/devices")).unwrap_or_default() {
        // Interfaces stand beside the devices, and have no node.
        if !is_interface(&device)
            && holds_files(&device)
            && let Some(known) = removable(&device)
        {
            found.add(NODE_IS_CHARACTER, &device, known, proc);
        }
    }
    found
}

impl Survey {
    fn add(&mut self, what: u64, device: &Path, mut known: Device, proc: &Path) {
        self.plugged |= known.class != device_class::OPTICAL || burns(proc);
        let number = read(device, "dev").and_then(|text| {
            let (major, minor) = text.split_once(':')?;
            Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
        });
        let Some(number) = number else { return };
        known.dev = number;
        let key = what | u64::from(number);
        let room = self.nodes.len() < DEVICE_NODES_MAX as usize;
        if room && self.nodes.iter().all(|(other, _)| *other != key) {
            self.nodes.push((key, known));
        }
    }
}

/// What a block device is, when it or something that it stands on is removable.
fn removable_block(device: &Path, layer: usize) -> Option<Device> {
    if let Some(known) = removable(device) {
        return Some(known);
    }
    if layer == LAYERS_MAX {
        return None;
    }
    // A partition lies in the directory of its disk.
    let disk = device.parent().filter(|_| device.join("partition").exists()).unwrap_or(device);
    let below = entries(&disk.join("slaves")).unwrap_or_default();
    below.iter().find_map(|lower| removable_block(lower, layer + 1))
}

/// The nearest device above that leads out of the machine, or the optical drive that it is.
fn removable(device: &Path) -> Option<Device> {
    outside(device).or_else(|| is_optical(device).then(|| of_class(device_class::OPTICAL)))
}

fn is_optical(device: &Path) -> bool {
    device.ancestors().any(|above| {
        let subsystem = above.join("subsystem").read_link().unwrap_or_default();
        subsystem.file_name() == Some(OsStr::new("scsi"))
            && read(above, "type").is_some_and(|kind| OPTICAL.contains(&kind.as_str()))
    })
}

/// Whether an optical drive can write discs; yes where that cannot be found out. One line for each
/// ability, one column for each drive (drivers/cdrom/cdrom.c, `cdrom_sysctl_info`).
fn burns(proc: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(proc.join("sys/dev/cdrom/info")) else {
        return true;
    };
    let mut abilities = text.lines().filter_map(|line| line.split_once(':'));
    abilities.any(|(ability, drives)| {
        let writes = ["Can write CD", "Can write DVD"];
        writes.iter().any(|it| ability.starts_with(it)) && drives.contains('1')
    })
}

fn outside(device: &Path) -> Option<Device> {
    device.ancestors().take_while(|above| above.file_name().is_some()).find_map(|above| {
        if let Some(vendor) = read(above, "idVendor") {
            return Some(Device {
                vendor: u16::from_str_radix(&vendor, 16).unwrap_or(0),
                product: hexadecimal(above, "idProduct"),
                serial: padded(&read(above, "serial").unwrap_or_default()),
                ..of_class(device_class::USB)
            });
        }
        let subsystem = above.join("subsystem").read_link().ok()?;
        match subsystem.file_name().and_then(OsStr::to_str)? {
            "mmc" => (read(above, "type")? != "MMC").then(|| Device {
                serial: padded(&read(above, "serial").unwrap_or_default()),
                ..of_class(device_class::SD)
            }),
            "pci" => (read(above, "removable")? == "removable")
                .then(|| of_class(device_class::THUNDERBOLT)),
            _ => None,
        }
    })
}

/// Whether the node of a USB device gives access to files: it is nothing but memory, or it is a
/// camera or phone. A printer with a card slot is used through its node, and its slot is a disk.
fn holds_files(device: &Path) -> bool {
    let Ok(inside) = device.read_dir() else {
        return false;
    };
    let interfaces: Vec<PathBuf> =
        inside.flatten().map(|entry| entry.path()).filter(|path| is_interface(path)).collect();
    let class = |interface: &PathBuf| read(interface, "bInterfaceClass").unwrap_or_default();
    let only_storage = interfaces.iter().all(|interface| class(interface) == STORAGE);
    (only_storage && !interfaces.is_empty()) || interfaces.iter().any(|it| is_phone(it, &class(it)))
}

fn is_phone(interface: &Path, class: &str) -> bool {
    let attribute = |name| read(interface, name).unwrap_or_default();
    let (subclass, protocols) = ANDROID;
    match class {
        IMAGING => true,
        VENDOR => {
            // Phones that call the class their own say so in the interface's name.
            attribute("interface").contains("MTP")
                || (attribute("bInterfaceSubClass") == subclass
                    && protocols.contains(&attribute("bInterfaceProtocol").as_str()))
        }
        _ => false,
    }
}

const fn of_class(class: u8) -> Device {
    let serial = [0; SERIAL_BYTES_MAX];
    Device { dev: 0, vendor: 0, product: 0, class, reserved: [0; 7], serial }
}

fn padded(text: &str) -> [u8; SERIAL_BYTES_MAX] {
    let mut serial = [0; SERIAL_BYTES_MAX];
    // The kernel programs keep a zero at the end.
    serial
        .iter_mut()
        .zip(text.bytes().take(SERIAL_BYTES_MAX - 1))
        .for_each(|(to, from)| *to = from);
    serial
}

fn hexadecimal(device: &Path, name: &str) -> u16 {
    read(device, name).and_then(|text| u16::from_str_radix(&text, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs in miniature.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn device(&self, path: &str, attributes: &[(&str, &str)]) -> PathBuf {
            let directory = self.0.path().join("devices").join(path);
            fs::create_dir_all(&directory).unwrap();
            for (name, value) in attributes {
                fs::write(directory.join(name), format!("{value}\n")).unwrap();
            }
            directory
        }

        fn link(&self, from: &str, to: &Path) {
            let from = self.0.path().join(from);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            symlink(to, from).unwrap();
        }

        fn stick(&self) -> PathBuf {
            let ids = [("idVendor", "0951"), ("idProduct", "1666"), ("serial", "E0D55")];
            let usb = self.device("pci0/usb1/1-1", &ids);
            fs::write(usb.join("dev"), "189:3\n").unwrap();
            self.device("pci0/usb1/1-1/1-1:1.0", &[("bInterfaceClass", "08")]);
            self.link("bus/usb/devices/1-1", &usb);
            let disk = self.device("pci0/usb1/1-1/1-1:1.0/host2/block/sda", &[("dev", "8:0")]);
            self.link("class/block/sda", &disk);
            disk
        }
    }

    fn numbers(survey: &Survey) -> Vec<u64> {
        let mut numbers: Vec<u64> = survey.nodes.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_stick_and_everything_that_leads_to_it() {
        let sys = Sys::new();
        let disk = sys.stick();
        let partition = disk.join("sda1");
        fs::create_dir(&partition).unwrap();
        fs::write(partition.join("dev"), "8:1\n").unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        sys.link("class/block/sda1", &partition);
        let generic =
            sys.device("pci0/usb1/1-1/1-1:1.0/host2/scsi_generic/sg1", &[("dev", "21:1")]);
        sys.link("class/scsi_generic/sg1", &generic);
        let found = survey(sys.0.path(), sys.0.path());
        assert!(found.plugged);
        let character = |major: u64, minor: u64| NODE_IS_CHARACTER | major << 20 | minor;
        assert_eq!(numbers(&found), [8 << 20, 8 << 20 | 1, character(21, 1), character(189, 3)]);
        let (_, stick) = found.nodes.first().unwrap();
        assert_eq!((stick.class, stick.vendor, stick.product), (device_class::USB, 0x951, 0x1666));
        assert!(stick.serial.starts_with(b"E0D55\0"));
    }

    #[test]
    fn what_is_built_in_is_no_removable_medium() {
        let sys = Sys::new();
        let disk = sys.device("pci0/0000:00:05.0/virtio2/block/vda", &[("dev", "254:0")]);
        sys.link("class/block/vda", &disk);
        let keyboard = sys.device("pci0/usb1/1-2", &[("idVendor", "046d"), ("dev", "189:5")]);
        sys.device("pci0/usb1/1-2/1-2:1.0", &[("bInterfaceClass", "03")]);
        sys.link("bus/usb/devices/1-2", &keyboard);
        assert_eq!(survey(sys.0.path(), sys.0.path()), Survey::default());
    }

    #[rstest::rstest]
    #[case::phone("06", "01", "01", "", true)]
    #[case::phone_of_its_own_class("ff", "ff", "00", "MTP", true)]
    #[case::debugging("ff", "42", "01", "ADB Interface", true)]
    #[case::printer_with_a_card_slot("08", "06", "50", "", false)]
    #[case::serial_line("ff", "00", "00", "", false)]
    fn phones_are_told_by_their_interfaces(
        #[case] class: &str,
        #[case] subclass: &str,
        #[case] protocol: &str,
        #[case] name: &str,
        #[case] found: bool,
    ) {
        let sys = Sys::new();
        let device = sys.device("pci0/usb1/1-3", &[("idVendor", "18d1"), ("dev", "189:7")]);
        sys.device("pci0/usb1/1-3/1-3:1.0", &[("bInterfaceClass", "07")]);
        let attributes = [
            ("bInterfaceClass", class),
            ("bInterfaceSubClass", subclass),
            ("bInterfaceProtocol", protocol),
            ("interface", name),
        ];
        sys.device("pci0/usb1/1-3/1-3:1.1", &attributes);
        sys.link("bus/usb/devices/1-3", &device);
        sys.link("class/block/none", Path::new("/nonexistent"));
        assert_eq!(!survey(sys.0.path(), sys.0.path()).nodes.is_empty(), found);
    }

    #[test]
    fn an_encrypted_volume_is_what_it_stands_on() {
        let sys = Sys::new();
        let stick = sys.stick();
        let crypt = sys.device("virtual/block/dm-0", &[("dev", "253:0")]);
        let volume = sys.device("virtual/block/dm-1", &[("dev", "253:1")]);
        fs::create_dir(crypt.join("slaves")).unwrap();
        fs::create_dir(volume.join("slaves")).unwrap();
        symlink(&stick, crypt.join("slaves/sda")).unwrap();
        symlink(&crypt, volume.join("slaves/dm-0")).unwrap();
        sys.link("class/block/dm-1", &volume);
        assert!(numbers(&survey(sys.0.path(), sys.0.path())).contains(&(253 << 20 | 1)));
    }

    #[test]
    fn cards_are_told_from_soldered_memory() {
        for (kind, removable) in [("SD", true), ("MMC", false)] {
            let sys = Sys::new();
            let attributes = [("type", kind), ("serial", "0x1234")];
            let card = sys.device("pci0/mmc_host/mmc0/mmc0:aaaa", &attributes);
            sys.link("devices/pci0/mmc_host/mmc0/mmc0:aaaa/subsystem", Path::new("/sys/bus/mmc"));
            let disk = card.join("block/mmcblk0");
            fs::create_dir_all(&disk).unwrap();
            fs::write(disk.join("dev"), "179:0\n").unwrap();
            sys.link("class/block/mmcblk0", &disk);
            let found = survey(sys.0.path(), sys.0.path());
            assert_eq!(found.plugged, removable);
            let classes: Vec<u8> = found.nodes.iter().map(|(_, device)| device.class).collect();
            assert_eq!(classes, if removable { vec![device_class::SD] } else { vec![] });
        }
    }

    #[test]
    fn disks_outside_of_the_case_are_removable() {
        let sys = Sys::new();
        sys.device("pci0/0000:04:00.0", &[("removable", "removable")]);
        sys.link("devices/pci0/0000:04:00.0/subsystem", Path::new("/sys/bus/pci"));
        let disk = sys.device("pci0/0000:04:00.0/nvme/nvme0/nvme0n1", &[("dev", "259:0")]);
        sys.link("class/block/nvme0n1", &disk);
        let found = survey(sys.0.path(), sys.0.path());
        let classes: Vec<u8> = found.nodes.iter().map(|(_, device)| device.class).collect();
        assert_eq!(classes, [device_class::THUNDERBOLT]);
    }

    #[rstest::rstest]
    #[case::burner("Can write CD-R:\t\t0\t1\n", true)]
    #[case::reader("Can read DVD:\t\t1\nCan write CD-R:\t\t0\nCan write MRW:\t\t1\n", false)]
    fn optical_drives_are_media_and_burners_are_watched(
        #[case] abilities: &str,
        #[case] watched: bool,
    ) {
        let sys = Sys::new();
        let scsi = sys.device("pci0/ata1/host0/target0:0:0/0:0:0:0", &[("type", "5")]);
        symlink("/sys/bus/scsi", scsi.join("subsystem")).unwrap();
        let at = "pci0/ata1/host0/target0:0:0/0:0:0:0";
        let disk = sys.device(&format!("{at}/block/sr0"), &[("dev", "11:0")]);
        sys.link("class/block/sr0", &disk);
        let generic = sys.device(&format!("{at}/scsi_generic/sg0"), &[("dev", "21:0")]);
        sys.link("class/scsi_generic/sg0", &generic);
        fs::create_dir_all(sys.0.path().join("sys/dev/cdrom")).unwrap();
        fs::write(sys.0.path().join("sys/dev/cdrom/info"), abilities).unwrap();
        let found = survey(sys.0.path(), sys.0.path());
        assert_eq!(found.plugged, watched);
        assert_eq!(numbers(&found), [11 << 20, NODE_IS_CHARACTER | 21 << 20]);
        assert!(found.nodes.iter().all(|(_, it)| it.class == device_class::OPTICAL));
    }

    #[test]
    fn what_cannot_be_read_counts_as_plugged() {
        assert!(survey(Path::new("/nonexistent"), Path::new("/nonexistent")).plugged);
    }
}
