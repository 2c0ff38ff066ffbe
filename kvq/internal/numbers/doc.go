// Package numbers turns groups of numbers into codes, a scale and a zero point, and back. It knows
// nothing of bytes: how codes are packed is the business of package codes.
//
// It changes when a quantizer, a format of scales or the rounding changes.
//
// Values come split into groups already: one axis of x runs over a group, and scale and zero point
// keep that axis with size 1. What every quantizer does with values that are no ordinary numbers:
//
//   - An element that is not valid, or NaN or infinite, has no vote in the range of its group. NaN
//     and elements that are not valid get the lowest code (the one of 0 where there is no zero
//     point), infinities the code of the nearest end: all decode to finite values.
//   - A group without a voter gets scale 0 and zero point 0.
//   - A constant group gets scale 0 and codes 0, and decodes to its constant exactly, but for
//     rounding where scales of tokens multiply it.
//   - A group whose range is too wide for the dtype (3e38 and -3e38 in float32, 60000 and -60000 in
//     float16) is limited to a little less than half of the largest finite number on both sides;
//     values beyond saturate. quanto gives NaN for the whole group. The same limit holds for every
//     group whose range is searched or rounded outward, and for codes around a middle one.
//   - Numbers below the normal ones of float32 (1.2e-38) may count as 0: XLA's CPU code flushes
//     them.
//
// So finite input never gives NaN or infinity.
package numbers
