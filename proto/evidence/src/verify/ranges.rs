//! Numbers as the ranges that they make.

/// First and last of each range without a gap; `numbers` need no order.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) || *last == number => {
                *last = number;
            }
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// `7`, or `7 to 9`.
pub(super) fn shown((first, last): (u64, u64)) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_make_ranges() {
        assert_eq!(ranges([5, 1, 2, 3, 9].into_iter()), [(1, 3), (5, 5), (9, 9)]);
        assert_eq!(ranges(std::iter::empty()), []);
        assert_eq!((shown((1, 3)), shown((5, 5))), ("1 to 3".to_owned(), "5".to_owned()));
    }
}
