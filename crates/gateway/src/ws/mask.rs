//! Unmasking of client frames (RFC 6455, section 5.3).

/// Unmasks `data` in place; `phase` is how many payload bytes of this frame came before.
pub(super) fn unmask(data: &mut [u8], key: [u8; 4], phase: usize) {
    let mut turned = key;
    turned.rotate_left(phase & 3);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = data.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(turned.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn any_length_and_phase_agrees_with_the_plain_loop() {
        let key = [1, 20, 130, 255];
        for len in 0..40 {
            for phase in 0..9 {
                let mut fast: Vec<u8> = (0..len).map(|n: u8| n.wrapping_mul(7)).collect();
                let plain: Vec<u8> =
                    fast.iter().enumerate().map(|(at, byte)| byte ^ key[(at + phase) % 4]).collect();
                unmask(&mut fast, key, phase);
                assert_eq!(fast, plain, "length {len}, phase {phase}");
            }
        }
    }
}
