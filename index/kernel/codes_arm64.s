#include "textflag.h"
#include "neon_arm64.h"

// Neither base NEON nor its dot products multiply signed by unsigned bytes. So
// 128 is taken off each code (an exclusive or with V31), and what is then
// missing, 128 times the sum of the query, is what a row's sums begin with
// (V30). All is modulo 2^32, and so exact. The sums of row j are in V2j and
// V2j+1, 32 bytes of the query in V16 and V17, of a row in V20 and V21.

// smull vd.8h, vn.8b, vm.8b
#define SMULL(m, n, d) \
	WORD $(0x0e20c000 | (m)<<16 | (n)<<5 | (d))

// smull2 vd.8h, vn.16b, vm.16b
#define SMULL2(m, n, d) \
	WORD $(0x4e20c000 | (m)<<16 | (n)<<5 | (d))

// sadalp vd.4s, vn.8h
#define SADALP(n, d) \
	WORD $(0x4e606800 | (n)<<5 | (d))

// sdot vd.4s, vn.16b, vm.16b
#define SDOT(m, n, d) \
	WORD $(0x4e809400 | (m)<<16 | (n)<<5 | (d))

// WIDEN and SDOTS add the products of 32 bytes, q0 and q1 times r0 and r1, to a
// and b. In WIDEN a product takes sixteen bits: two would not fit.
#define WIDEN(q0, q1, r0, r1, a, b) \
	SMULL(r0, q0, 24); \
	SMULL2(r0, q0, 25); \
	SMULL(r1, q1, 26); \
	SMULL2(r1, q1, 27); \
	SADALP(24, a); \
	SADALP(25, b); \
	SADALP(26, a); \
	SADALP(27, b)

#define SDOTS(q0, q1, r0, r1, a, b) \
	SDOT(r0, q0, a); \
	SDOT(r1, q1, b)

// QUERY loads 32 bytes of the query.
#define QUERY \
	VLD1.P 32(R10), [V16.B16, V17.B16]

// ROW adds the products of 32 bytes of a row to a and b.
#define ROW(ADD32, row, a, b) \
	VLD1.P 32(row), [V20.B16, V21.B16]; \
	VEOR V31.B16, V20.B16, V20.B16; \
	VEOR V31.B16, V21.B16, V21.B16; \
	ADD32(16, 17, 20, 21, a, b)

// BIAS begins what sets V30: a row of zeros, -128 each, is scored into V0
// and V1. BIASED ends it.
#define BIAS \
	MOVD R0, R10; \
	MOVD R1, R11; \
	VMOVI $0x80, V31.B16; \
	VEOR V0.B16, V0.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16

#define BIASED \
	VADD V0.S4, V1.S4, V1.S4; \
	VEOR V30.B16, V30.B16, V30.B16; \
	VSUB V1.S4, V30.S4, V30.S4

// BEGIN1 and BEGIN4 set what sums begin with.
#define BEGIN1 \
	MOVD R0, R10; \
	MOVD R1, R11; \
	VMOV V30.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16

#define BEGIN4 \
	BEGIN1; \
	VMOV V30.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; \
	VMOV V30.B16, V4.B16; \
	VEOR V5.B16, V5.B16, V5.B16; \
	VMOV V30.B16, V6.B16; \
	VEOR V7.B16, V7.B16, V7.B16

// SUM1 and SUM4 add each row's sums, and store the scores.
#define SUM1 \
	VADD V1.S4, V0.S4, V0.S4; \
	VADDV V0.S4, V0; \
	FMOVS.P F0, 4(R5)

#define SUM4 \
	VADD V1.S4, V0.S4, V0.S4; \
	VADD V3.S4, V2.S4, V2.S4; \
	VADD V5.S4, V4.S4, V4.S4; \
	VADD V7.S4, V6.S4, V6.S4; \
	VADDP V2.S4, V0.S4, V0.S4; \
	VADDP V6.S4, V4.S4, V4.S4; \
	VADDP V4.S4, V0.S4, V0.S4; \
	VST1.P [V0.S4], 16(R5)

// func dotCodesNEON(query []int8, rows []uint8, ordinals []uint32, out []int32)
TEXT ·dotCodesNEON(SB), NOSPLIT, $0-96
	MOVD query_base+0(FP), R0
	MOVD query_len+8(FP), R1
	MOVD rows_base+24(FP), R2
	MOVD ordinals_base+48(FP), R3
	MOVD ordinals_len+56(FP), R4
	MOVD out_base+72(FP), R5
	BIAS

bias:
	QUERY
	WIDEN(16, 17, 31, 31, 0, 1)
	SUBS $32, R11, R11
	BNE  bias
	BIASED

group:
	CMP $4, R4
	BLT single
	LOCATE(R6)
	LOCATE(R7)
	LOCATE(R8)
	LOCATE(R9)
	BEGIN4

block4:
	QUERY
	ROW(WIDEN, R6, 0, 1)
	ROW(WIDEN, R7, 2, 3)
	ROW(WIDEN, R8, 4, 5)
	ROW(WIDEN, R9, 6, 7)
	SUBS $32, R11, R11
	BNE  block4
	SUM4
	SUB  $4, R4, R4
	B    group

single:
	CBZ R4, done
	LOCATE(R9)
	BEGIN1

block1:
	QUERY
	ROW(WIDEN, R9, 0, 1)
	SUBS $32, R11, R11
	BNE  block1
	SUM1
	SUB  $1, R4, R4
	B    single

done:
	RET

// func dotCodesDotprod(query []int8, rows []uint8, ordinals []uint32, out []int32)
TEXT ·dotCodesDotprod(SB), NOSPLIT, $0-96
	MOVD query_base+0(FP), R0
	MOVD query_len+8(FP), R1
	MOVD rows_base+24(FP), R2
	MOVD ordinals_base+48(FP), R3
	MOVD ordinals_len+56(FP), R4
	MOVD out_base+72(FP), R5
	BIAS

bias:
	QUERY
	SDOTS(16, 17, 31, 31, 0, 1)
	SUBS $32, R11, R11
	BNE  bias
	BIASED

group:
	CMP $4, R4
	BLT single
	LOCATE(R6)
	LOCATE(R7)
	LOCATE(R8)
	LOCATE(R9)
	BEGIN4

block4:
	QUERY
	ROW(SDOTS, R6, 0, 1)
	ROW(SDOTS, R7, 2, 3)
	ROW(SDOTS, R8, 4, 5)
	ROW(SDOTS, R9, 6, 7)
	SUBS $32, R11, R11
	BNE  block4
	SUM4
	SUB  $4, R4, R4
	B    group

single:
	CBZ R4, done
	LOCATE(R9)
	BEGIN1

block1:
	QUERY
	ROW(SDOTS, R9, 0, 1)
	SUBS $32, R11, R11
	BNE  block1
	SUM1
	SUB  $1, R4, R4
	B    single

done:
	RET
