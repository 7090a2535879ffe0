//! Who works where with what: the same for each run.

use sekimori_proto::v1::Device;

const FAMILIES: [&str; 20] = [
    "sato",
    "suzuki",
    "takahashi",
    "tanaka",
    "ito",
    "watanabe",
    "yamamoto",
    "nakamura",
    "kobayashi",
    "kato",
    "yoshida",
    "yamada",
    "sasaki",
    "yamaguchi",
    "matsumoto",
    "inoue",
    "kimura",
    "hayashi",
    "shimizu",
    "saito",
];
const GIVEN: [&str; 15] = [
    "akira", "emi", "hanako", "hiroshi", "jun", "kaori", "kenji", "makoto", "mei", "naoko", "rei",
    "satoshi", "taro", "yui", "yuki",
];
const CUSTOMERS: [&str; 12] = [
    "関守電機株式会社",
    "北浜商事",
    "東雲製作所",
    "有限会社みどり",
    "若葉銀行",
    "瀬戸内海運",
    "富士見区役所",
    "楓化学工業",
    "日の出出版",
    "港南大学病院",
    "白樺建設",
    "ＡＢＣ物流",
];
const DOCUMENTS: [&str; 10] = [
    "見積書",
    "請求書",
    "契約書_最終版",
    "議事録",
    "顧客名簿",
    "給与明細",
    "設計図",
    "提案資料",
    "在庫一覧",
    "仕様書",
];
const ENDINGS: [&str; 6] = ["xlsx", "docx", "pdf", "pptx", "csv", "dwg"];
const SYSTEM_FILES: [&str; 12] = [
    "/etc/passwd",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/usr/share/zoneinfo/Asia/Tokyo",
    "/usr/lib/locale/locale-archive",
    "/proc/self/maps",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/var/lib/dpkg/status",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/etc/ssl/certs/ca-certificates.crt",
];
const PROGRAMS: [&str; 24] = [
    "/usr/bin/bash",
    "/usr/bin/cp",
    "/usr/bin/python3.11",
    "/usr/bin/rsync",
    "/usr/bin/git",
    "/usr/bin/ssh",
    "/usr/bin/tar",
    "/usr/bin/zip",
    "/usr/bin/nautilus",
    "/usr/bin/evince",
    "/usr/bin/vim.basic",
    "/usr/bin/curl",
    "/usr/lib/firefox-esr/firefox-esr",
    "/usr/lib/libreoffice/program/soffice.bin",
    "/usr/lib/thunderbird/thunderbird",
    "/usr/bin/grep",
    "/usr/bin/sed",
    "/usr/bin/find",
    "/usr/bin/make",
    "/usr/bin/node",
    "/usr/bin/java",
    "/usr/bin/gpg",
    "/usr/bin/less",
    "/usr/bin/unzip",
];
const SERVICES: [&str; 15] = [
    "mail",
    "storage",
    "www",
    "cdn",
    "api",
    "upload",
    "drive",
    "chat",
    "git",
    "sso",
    "update",
    "telemetry",
    "img",
    "docs",
    "meet",
];
const DOMAINS: [&str; 20] = [
    "example.co.jp",
    "example.com",
    "kitahama.example",
    "shinonome.example",
    "wakaba.example",
    "cloud.example",
    "sharing.example",
    "mirror.example",
    "webmail.example",
    "fileshare.example",
    "social.example",
    "video.example",
    "cad.example",
    "erp.example",
    "bank.example",
    "travel.example",
    "news.example",
    "search.example",
    "dev.example",
    "ads.example",
];

/// Users there are.
pub const USERS: u64 = (FAMILIES.len() * GIVEN.len()) as u64;
/// Programs there are: the usual ones, and tools of the house.
pub const PROGRAMS_ALL: u64 = 300;
/// Destinations there are.
pub const DESTINATIONS: u64 = (SERVICES.len() * DOMAINS.len()) as u64;
/// Memory sticks there are.
pub const STICKS: u64 = 250;
/// Kinds of files: people's documents are the last of them.
const OTHER_FILES: u64 = 3;

fn pick<'a>(words: &[&'a str], number: u64) -> &'a str {
    let count = words.len().max(1) as u64;
    usize::try_from(number % count).ok().and_then(|at| words.get(at).copied()).unwrap_or_default()
}

/// Name of a user, by number.
pub fn user(number: u64) -> String {
    let family = pick(&FAMILIES, number);
    let given = pick(&GIVEN, number / FAMILIES.len() as u64);
    format!("{given}.{family}")
}

/// Path of a program, by number.
pub fn program(number: u64) -> String {
    match number % PROGRAMS_ALL {
        usual if usual < PROGRAMS.len() as u64 => pick(&PROGRAMS, usual).to_owned(),
        own => format!("/opt/業務システム/bin/gyomu-tool-{own:03}"),
    }
}

/// Name and address of a destination, by number.
pub fn destination(number: u64) -> (String, String) {
    let number = number % DESTINATIONS;
    let name = format!("{}.{}", pick(&SERVICES, number), pick(&DOMAINS, number / 15));
    (name, format!("198.51.{}.{}", 100 + number / 250, 1 + number % 250))
}

/// A memory stick, by number.
pub fn stick(number: u64) -> Device {
    let number = number % STICKS;
    Device {
        class: "usb".to_owned(),
        vendor: "0951".to_owned(),
        product: format!("{:04x}", 0x1600 + number % 7),
        serial: serial(number),
        major: 8,
        minor: 17,
        ..Device::default()
    }
}

/// Serial of a stick, by number.
pub fn serial(number: u64) -> String {
    format!("E0D55EA574{:06X}", 0x0A_0000 + number * 977)
}

/// A document of somebody, by number.
pub fn document(user: &str, number: u64) -> String {
    format!("/home/{user}/文書/2026年度/{}", document_name(number))
}

/// Where a document is copied to on a stick.
pub fn on_stick(user: &str, number: u64) -> String {
    format!("/media/{user}/KINGSTON/{}", document_name(number))
}

fn document_name(number: u64) -> String {
    let customer = pick(&CUSTOMERS, number);
    let document = pick(&DOCUMENTS, number / 12);
    let ending = pick(&ENDINGS, number / 120);
    format!("{customer}/{document}_{:04}.{ending}", number % 4000)
}

/// Whatever file a program opens, by number.
pub fn file(user: &str, number: u64) -> String {
    let rest = number / (OTHER_FILES + 1);
    match number % (OTHER_FILES + 1) {
        0 => pick(&SYSTEM_FILES, rest).to_owned(),
        1 => format!("/home/{user}/.cache/mozilla/firefox/k3x.default/cache2/entries/{rest:016X}"),
        2 => format!("/srv/共有/設計/部品{:03}/図面-{:05}.dwg", rest % 200, rest % 30_000),
        _ => document(user, rest),
    }
}
