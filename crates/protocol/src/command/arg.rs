//! Arguments: what a caller may hand to a command, and how it becomes bytes.

use bytes::Bytes;

use super::Command;

/// One argument.
///
/// A byte vector is one string, never a list of numbers; large `Bytes` are sent by reference, without a copy.
pub trait ToArg {
    /// Appends the argument to `command`.
    fn append_to(&self, command: &mut Command);
}

/// One argument or several: tuples, slices, vectors and iterables of arguments.
pub trait ToArgs {
    /// Appends the arguments to `command`.
    fn append_all_to(&self, command: &mut Command);
}

impl ToArg for [u8] {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self);
    }
}

impl ToArg for str {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self.as_bytes());
    }
}

impl ToArg for String {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self.as_bytes());
    }
}

impl ToArg for Vec<u8> {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self);
    }
}

impl<const N: usize> ToArg for [u8; N] {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self);
    }
}

impl ToArg for Bytes {
    fn append_to(&self, command: &mut Command) {
        command.push_shared(self);
    }
}

impl<T: ToArg + ?Sized> ToArg for &T {
    fn append_to(&self, command: &mut Command) {
        (**self).append_to(command);
    }
}

impl<T: ToArg + ?Sized + ToOwned> ToArg for std::borrow::Cow<'_, T> {
    fn append_to(&self, command: &mut Command) {
        self.as_ref().append_to(command);
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl ToArg for $type {
            fn append_to(&self, command: &mut Command) {
                command.push_bytes(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )*};
}

integers!(i16, i32, i64, isize, u16, u32, u64, usize);

impl ToArg for f64 {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self.to_string().as_bytes());
    }
}

impl ToArg for f32 {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(self.to_string().as_bytes());
    }
}

impl ToArg for bool {
    fn append_to(&self, command: &mut Command) {
        command.push_bytes(if *self { b"1" } else { b"0" });
    }
}

impl<T: ToArg> ToArgs for [T] {
    fn append_all_to(&self, command: &mut Command) {
        for arg in self {
            arg.append_to(command);
        }
    }
}

impl<T: ToArg, const N: usize> ToArgs for [T; N] {
    fn append_all_to(&self, command: &mut Command) {
        self.as_slice().append_all_to(command);
    }
}

impl<T: ToArg> ToArgs for Vec<T> {
    fn append_all_to(&self, command: &mut Command) {
        self.as_slice().append_all_to(command);
    }
}

impl<T: ToArgs + ?Sized> ToArgs for &T {
    fn append_all_to(&self, command: &mut Command) {
        (**self).append_all_to(command);
    }
}

/// One name is a list of one.
impl ToArgs for str {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

/// One name is a list of one.
impl ToArgs for String {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

/// One name is a list of one.
impl ToArgs for Bytes {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

/// Nothing at all.
impl ToArgs for () {
    fn append_all_to(&self, _command: &mut Command) {}
}

/// Bytes are one string, as in [`ToArg`].
impl ToArgs for [u8] {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

/// Bytes are one string, as in [`ToArg`].
impl<const N: usize> ToArgs for [u8; N] {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

/// Bytes are one string, as in [`ToArg`].
impl ToArgs for Vec<u8> {
    fn append_all_to(&self, command: &mut Command) {
        self.append_to(command);
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        /// One number is a list of one.
        impl ToArgs for $type {
            fn append_all_to(&self, command: &mut Command) {
                self.append_to(command);
            }
        }
    )*};
}

numbers!(i16, i32, i64, isize, u16, u32, u64, usize, f32, f64);

macro_rules! tuples {
    ($(($($name:ident . $index:tt),+);)*) => {$(
        impl<$($name: ToArg),+> ToArgs for ($($name,)+) {
            fn append_all_to(&self, command: &mut Command) {
                $(self.$index.append_to(command);)+
            }
        }
    )*};
}

tuples! {
    (A.0);
    (A.0, B.1);
    (A.0, B.1, C.2);
    (A.0, B.1, C.2, D.3);
    (A.0, B.1, C.2, D.3, E.4);
    (A.0, B.1, C.2, D.3, E.4, F.5);
    (A.0, B.1, C.2, D.3, E.4, F.5, G.6);
    (A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_is_a_list_of_one_and_bytes_are_one_argument() {
        let count = |args: &dyn Fn(Command) -> Command| args(Command::new("X")).args().count() - 1;
        assert_eq!(count(&|command| command.args_from(())), 0);
        assert_eq!(count(&|command| command.args_from(5)), 1);
        assert_eq!(count(&|command| command.args_from("name")), 1);
        assert_eq!(count(&|command| command.args_from(b"bytes")), 1);
        assert_eq!(count(&|command| command.args_from(vec![1u8, 2, 3])), 1);
        assert_eq!(count(&|command| command.args_from([1, 2, 3])), 3);
        assert_eq!(count(&|command| command.args_from(("a", 1, 2.5))), 3);
    }
}
