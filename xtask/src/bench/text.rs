//! Numbers and tables for people: Markdown that is aligned, so that it reads well as it is.

/// A table whose columns after the first are numbers.
pub fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let mut text = String::from("|");
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            match column {
                0 => text.push_str(&format!(" {cell:<width$} |")),
                _ => text.push_str(&format!(" {cell:>width$} |")),
            }
        }
        text + "\n"
    };
    let mut text = line(header) + "|";
    for (column, width) in widths.iter().enumerate() {
        let colon = if column == 0 { "-" } else { ":" };
        text.push_str(&format!("{}{colon}|", "-".repeat(width + 1)));
    }
    text.push('\n');
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// What is more than without a monitor, or less.
pub fn signed(number: f64) -> String {
    let sign = if number < -0.5 { '-' } else { '+' };
    format!("{sign}{}", whole(number.abs()))
}

/// A whole number with commas between thousands.
pub fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With as many places as are worth it.
pub fn number(number: f64) -> String {
    match number.abs() {
        _ if number.fract() == 0.0 => whole(number),
        ..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        _ => whole(number),
    }
}

/// Kibibytes as mebibytes.
pub fn mebibytes(kib: u64) -> String {
    format!("{:.0} MiB", kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::{number, signed, table, whole};

    #[test]
    fn numbers_read_well() {
        assert_eq!(whole(1_234_567.4), "1,234,567");
        assert_eq!(whole(999.6), "1,000");
        assert_eq!(number(1_234.5), "1,234");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(20.0), "20");
        assert_eq!(number(0.256), "0.26");
        assert_eq!(signed(-12.0), "-12");
        assert_eq!(signed(0.2), "+0");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let words = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let text = table(&words(&["what", "a"]), &[words(&["x", "1,000"]), words(&["longer"])]);
        let expected = "| what   |     a |\n|--------|------:|\n| x      | 1,000 |\n\
                        | longer |       |\n";
        assert_eq!(text, expected);
    }
}
