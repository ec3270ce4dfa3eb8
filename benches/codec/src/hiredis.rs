//! The part of libhiredis that reads replies and formats commands.

use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

#[repr(C)]
struct RawReader {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn redisReaderCreate() -> *mut RawReader;
    fn redisReaderCreateWithFunctions(functions: *const c_void) -> *mut RawReader;
    fn redisReaderFree(reader: *mut RawReader);
    fn redisReaderFeed(reader: *mut RawReader, bytes: *const c_char, length: usize) -> c_int;
    fn redisReaderGetReply(reader: *mut RawReader, reply: *mut *mut c_void) -> c_int;
    fn freeReplyObject(reply: *mut c_void);
    fn redisFormatCommandArgv(
        target: *mut *mut c_char,
        argc: c_int,
        argv: *const *const c_char,
        lengths: *const usize,
    ) -> c_int;
}

/// A reader; with `objects` it builds its tree of each reply, without it only finds where each ends.
pub struct Reader {
    raw: *mut RawReader,
    objects: bool,
}

impl Reader {
    pub fn new(objects: bool) -> Self {
        // SAFETY: both are constructors; a null table means that no object is made.
        let raw = unsafe {
            if objects { redisReaderCreate() } else { redisReaderCreateWithFunctions(ptr::null()) }
        };
        assert!(!raw.is_null(), "hiredis has memory for a reader");
        Self { raw, objects }
    }

    /// Feeds bytes and takes the replies that are whole; gives how many.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut replies = 0;
        // SAFETY: the reader is alive, the bytes are copied, and each reply is freed once.
        unsafe {
            assert_eq!(redisReaderFeed(self.raw, bytes.as_ptr().cast(), bytes.len()), 0);
            loop {
                let mut reply = ptr::null_mut();
                assert_eq!(redisReaderGetReply(self.raw, &raw mut reply), 0, "the bytes are RESP2");
                if reply.is_null() {
                    return replies;
                }
                if self.objects {
                    freeReplyObject(reply);
                }
                replies += 1;
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: made by hiredis and freed once.
        unsafe { redisReaderFree(self.raw) }
    }
}

/// Formats a command; the bytes are given to `with` and freed.
pub fn format(args: &[&[u8]], with: impl FnOnce(&[u8])) {
    let pointers: [*const c_char; 4] =
        std::array::from_fn(|index| args.get(index).map_or(ptr::null(), |arg| arg.as_ptr().cast()));
    let lengths: [usize; 4] = std::array::from_fn(|index| args.get(index).map_or(0, |arg| arg.len()));
    let mut target = ptr::null_mut();
    // SAFETY: as many pointers and lengths as are announced; the target comes from malloc.
    unsafe {
        let length =
            redisFormatCommandArgv(&raw mut target, args.len() as c_int, pointers.as_ptr(), lengths.as_ptr());
        assert!(length > 0, "hiredis has memory for a command");
        with(std::slice::from_raw_parts(target.cast(), length as usize));
        libc::free(target.cast());
    }
}
