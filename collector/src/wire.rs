//! Protobuf as it lies in its bytes (protobuf.dev/programming-guides/encoding): for those who want a
//! few fields of many messages and no message.

/// Fields that may come more than once, by number.
pub const fn repeated(numbers: &[u32]) -> u64 {
    let (mut set, mut rest) = (0, numbers);
    while let [number, others @ ..] = rest {
        set |= 1_u64 << *number;
        rest = others;
    }
    set
}

/// Of a number on the wire only the lower half counts.
#[allow(clippy::cast_possible_truncation, reason = "so the wire format wants it")]
pub const fn int32(number: u64) -> i32 {
    number as i32
}

/// What a field has.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A number of any kind.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of one message.
#[derive(Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// Those that came and may not come again.
    seen: u64,
    repeated: u64,
}

impl<'a> Fields<'a> {
    /// Of a message, of which those in `repeated` may come more than once.
    pub const fn of(body: &'a [u8], repeated: u64) -> Fields<'a> {
        Fields { rest: body, seen: 0, repeated }
    }

    /// Of a part of a message behind others, in which the fields `seen` came.
    pub const fn behind(seen: u64, body: &'a [u8], repeated: u64) -> Fields<'a> {
        Fields { rest: body, seen, repeated }
    }

    /// The fields that came so far and may not come again.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Number and value; within, `None` at the end of the message. Outside, when it is no message, or
    /// not one of the plain kind: a field that came before, or of a fixed width, or numbered above 63.
    #[allow(clippy::inline_always, reason = "a call costs as much as the work; see the benchmark")]
    #[inline(always)]
    pub fn next(&mut self) -> Option<Option<(u32, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let key = u32::try_from(self.number()?).ok()?;
        let number = key >> 3;
        let one = 1_u64.checked_shl(number).filter(|_| number > 0)?;
        if self.seen & one != 0 {
            return None;
        }
        self.seen |= one & !self.repeated;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            2 => {
                let size = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(size)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some(Some((number, value)))
    }

    /// Seven bits a byte, the lowest first; at most 64 of them. Most numbers have one byte or two.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        match *self.rest {
            [one, ref rest @ ..] if one < 0x80 => {
                self.rest = rest;
                Some(u64::from(one))
            }
            [one, two, ref rest @ ..] if two < 0x80 => {
                self.rest = rest;
                Some(u64::from(one & 0x7f) | u64::from(two) << 7)
            }
            _ => self.long_number(),
        }
    }

    #[inline(never)]
    fn long_number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            if shift == 63 && *byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
