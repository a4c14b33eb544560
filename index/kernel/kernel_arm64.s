#include "textflag.h"
#include "neon_arm64.h"

// The lanes of row j are in V4j to V4j+3, a block of the query in V16 to V19, that
// of a row, and its terms, in V20 to V23.

// fadd vd.4s, vn.4s, vm.4s
#define FADD(m, n, d) \
	WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d))

// fsub vd.4s, vn.4s, vm.4s
#define FSUB(m, n, d) \
	WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d))

// fmul vd.4s, vn.4s, vm.4s
#define FMUL(m, n, d) \
	WORD $(0x6e20dc00 | (m)<<16 | (n)<<5 | (d))

// faddp vd.4s, vn.4s, vm.4s
#define FADDP(m, n, d) \
	WORD $(0x6e20d400 | (m)<<16 | (n)<<5 | (d))

// fcvtl vd.4s, vn.4h
#define FCVTL(n, d) \
	WORD $(0x0e217800 | (n)<<5 | (d))

// fcvtl2 vd.4s, vn.8h
#define FCVTL2(n, d) \
	WORD $(0x4e217800 | (n)<<5 | (d))

// ucvtf vd.4s, vn.4s
#define UCVTF(n, d) \
	WORD $(0x6e21d800 | (n)<<5 | (d))

// FLOAT32, FLOAT16 and UINT8 load a block of a row, as float32.
#define FLOAT32(row) \
	VLD1.P 64(row), [V20.S4, V21.S4, V22.S4, V23.S4]

#define FLOAT16(row) \
	VLD1.P 32(row), [V21.H8, V22.H8]; \
	FCVTL2(22, 23); \
	FCVTL(22, 22); \
	FCVTL(21, 20); \
	FCVTL2(21, 21)

#define UINT8(row) \
	VLD1.P 16(row), [V23.B16]; \
	VUXTL V23.B8, V21.H8; \
	VUXTL2 V23.B16, V23.H8; \
	VUXTL V21.H4, V20.S4; \
	VUXTL2 V21.H8, V21.S4; \
	VUXTL V23.H4, V22.S4; \
	VUXTL2 V23.H8, V23.S4; \
	UCVTF(20, 20); \
	UCVTF(21, 21); \
	UCVTF(22, 22); \
	UCVTF(23, 23)

// DOT and L2 leave four terms of the query q and of the row r in r. Products
// are rounded before they are added to a lane: never a fused multiply-add.
#define DOT(q, r) \
	FMUL(r, q, r)

#define L2(q, r) \
	FSUB(r, q, r); \
	FMUL(r, r, r)

// QUERY loads a block of the query.
#define QUERY \
	VLD1.P 64(R10), [V16.S4, V17.S4, V18.S4, V19.S4]

// ROW adds the terms of a block to the lanes a to d.
#define ROW(LOAD, TERM, row, a, b, c, d) \
	LOAD(row); \
	TERM(16, 20); \
	TERM(17, 21); \
	TERM(18, 22); \
	TERM(19, 23); \
	FADD(20, a, a); \
	FADD(21, b, b); \
	FADD(22, c, c); \
	FADD(23, d, d)

// LATER sets fetch to the address of the row of the n-th ordinal from the next
// one on, or of the last, whose ordinal is at R16.
#define LATER(n, fetch) \
	ADD $(4*n), R3, fetch; \
	CMP R16, fetch; \
	CSEL HI, R16, fetch, fetch; \
	MOVWU (fetch), fetch; \
	MADD R1, R2, fetch, fetch

// AHEAD prefetches a block of n bytes.
#define AHEAD(n, fetch) \
	PRFM (fetch), PLDL1KEEP; \
	ADD $(n), fetch

// BEGIN1 and BEGIN4 clear the lanes.
#define BEGIN1 \
	MOVD R0, R10; \
	MOVD R1, R11; \
	VEOR V0.B16, V0.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16; \
	VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16

#define BEGIN4 \
	BEGIN1; \
	VEOR V4.B16, V4.B16, V4.B16; \
	VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; \
	VEOR V7.B16, V7.B16, V7.B16; \
	VEOR V8.B16, V8.B16, V8.B16; \
	VEOR V9.B16, V9.B16, V9.B16; \
	VEOR V10.B16, V10.B16, V10.B16; \
	VEOR V11.B16, V11.B16, V11.B16; \
	VEOR V12.B16, V12.B16, V12.B16; \
	VEOR V13.B16, V13.B16, V13.B16; \
	VEOR V14.B16, V14.B16, V14.B16; \
	VEOR V15.B16, V15.B16, V15.B16

// FOLD adds lane j+8 to lane j, and j+4 to j.
#define FOLD(a, b, c, d) \
	FADD(c, a, a); \
	FADD(d, b, b); \
	FADD(b, a, a)

// SUM1 adds lane j+2 to j and 1 to 0, and stores the score.
#define SUM1 \
	FOLD(0, 1, 2, 3); \
	VEXT $8, V0.B16, V0.B16, V1.B16; \
	FADD(1, 0, 0); \
	FADDP(0, 0, 0); \
	FMOVS.P F0, 4(R5)

// SUM4 does the same for the rows a to d at once: lanes a0 a1 b0 b1 in V20 are
// added to a2 a3 b2 b3 in V21, as in V22 and V23 those of c and d, and then
// neighbours to each other.
#define SUM4 \
	FOLD(0, 1, 2, 3); \
	FOLD(4, 5, 6, 7); \
	FOLD(8, 9, 10, 11); \
	FOLD(12, 13, 14, 15); \
	VZIP1 V4.D2, V0.D2, V20.D2; \
	VZIP2 V4.D2, V0.D2, V21.D2; \
	VZIP1 V12.D2, V8.D2, V22.D2; \
	VZIP2 V12.D2, V8.D2, V23.D2; \
	FADD(21, 20, 20); \
	FADD(23, 22, 22); \
	FADDP(22, 20, 20); \
	VST1.P [V20.S4], 16(R5)

// SINGLES scores the rows left, of which GET finds the next, and returns. A block
// is of n bytes.
#define SINGLES(GET, LOAD, TERM, n) \
single: \
	CBZ R4, done; \
	GET; \
	BEGIN1; \
block1: \
	QUERY; \
	ROW(LOAD, TERM, R9, 0, 1, 2, 3); \
	SUBS $(n), R11, R11; \
	BNE block1; \
	SUM1; \
	SUB $1, R4, R4; \
	B single; \
done: \
	RET

// NEXT1 finds the next listed row, HERE the next of consecutive ones, to which R9
// has come by itself.
#define NEXT1 LOCATE(R9)
#define HERE

// LIST is a routine for listed rows, whose elements are of 1<<SHIFT bytes.
#define LIST(LOAD, TERM, SHIFT) \
	MOVD query_base+0(FP), R0; \
	MOVD query_len+8(FP), R1; \
	MOVD rows_base+24(FP), R2; \
	MOVD ordinals_base+48(FP), R3; \
	MOVD ordinals_len+56(FP), R4; \
	MOVD out_base+72(FP), R5; \
	LSL $SHIFT, R1, R1; \
	ADD R4<<2, R3, R16; \
	SUB $4, R16, R16; \
group: \
	CMP $4, R4; \
	BLT single; \
	LATER(8, R12); \
	LATER(9, R13); \
	LATER(10, R14); \
	LATER(11, R15); \
	LOCATE(R6); \
	LOCATE(R7); \
	LOCATE(R8); \
	LOCATE(R9); \
	BEGIN4; \
block4: \
	QUERY; \
	ROW(LOAD, TERM, R6, 0, 1, 2, 3); \
	AHEAD(16<<SHIFT, R12); \
	ROW(LOAD, TERM, R7, 4, 5, 6, 7); \
	AHEAD(16<<SHIFT, R13); \
	ROW(LOAD, TERM, R8, 8, 9, 10, 11); \
	AHEAD(16<<SHIFT, R14); \
	ROW(LOAD, TERM, R9, 12, 13, 14, 15); \
	AHEAD(16<<SHIFT, R15); \
	SUBS $(16<<SHIFT), R11, R11; \
	BNE block4; \
	SUM4; \
	SUB $4, R4, R4; \
	B group; \
	SINGLES(NEXT1, LOAD, TERM, 16<<SHIFT)

// RANGE is a routine for consecutive rows.
#define RANGE(LOAD, TERM, SHIFT) \
	MOVD query_base+0(FP), R0; \
	MOVD query_len+8(FP), R1; \
	MOVD rows_base+24(FP), R9; \
	MOVD out_base+48(FP), R5; \
	MOVD out_len+56(FP), R4; \
	LSL $SHIFT, R1, R1; \
group: \
	CMP $4, R4; \
	BLT single; \
	NEXT4; \
	BEGIN4; \
block4: \
	QUERY; \
	ROW(LOAD, TERM, R6, 0, 1, 2, 3); \
	ROW(LOAD, TERM, R7, 4, 5, 6, 7); \
	ROW(LOAD, TERM, R8, 8, 9, 10, 11); \
	ROW(LOAD, TERM, R9, 12, 13, 14, 15); \
	SUBS $(16<<SHIFT), R11, R11; \
	BNE block4; \
	SUM4; \
	SUB $4, R4, R4; \
	B group; \
	SINGLES(HERE, LOAD, TERM, 16<<SHIFT)

// func dotNEON(query []float32, rows []float32, ordinals []uint32, out []float32)
TEXT ·dotNEON(SB), NOSPLIT, $0-96
	LIST(FLOAT32, DOT, 2)

// func dotRangeNEON(query []float32, rows []float32, out []float32)
TEXT ·dotRangeNEON(SB), NOSPLIT, $0-72
	RANGE(FLOAT32, DOT, 2)

// func l2NEON(query []float32, rows []float32, ordinals []uint32, out []float32)
TEXT ·l2NEON(SB), NOSPLIT, $0-96
	LIST(FLOAT32, L2, 2)

// func l2RangeNEON(query []float32, rows []float32, out []float32)
TEXT ·l2RangeNEON(SB), NOSPLIT, $0-72
	RANGE(FLOAT32, L2, 2)

// func dotFloat16NEON(query []float32, rows []uint16, ordinals []uint32, out []float32)
TEXT ·dotFloat16NEON(SB), NOSPLIT, $0-96
	LIST(FLOAT16, DOT, 1)

// func dotRangeFloat16NEON(query []float32, rows []uint16, out []float32)
TEXT ·dotRangeFloat16NEON(SB), NOSPLIT, $0-72
	RANGE(FLOAT16, DOT, 1)

// func l2Float16NEON(query []float32, rows []uint16, ordinals []uint32, out []float32)
TEXT ·l2Float16NEON(SB), NOSPLIT, $0-96
	LIST(FLOAT16, L2, 1)

// func l2RangeFloat16NEON(query []float32, rows []uint16, out []float32)
TEXT ·l2RangeFloat16NEON(SB), NOSPLIT, $0-72
	RANGE(FLOAT16, L2, 1)

// func dotUint8NEON(query []float32, rows []uint8, ordinals []uint32, out []float32)
TEXT ·dotUint8NEON(SB), NOSPLIT, $0-96
	LIST(UINT8, DOT, 0)

// func dotRangeUint8NEON(query []float32, rows []uint8, out []float32)
TEXT ·dotRangeUint8NEON(SB), NOSPLIT, $0-72
	RANGE(UINT8, DOT, 0)

// func l2Uint8NEON(query []float32, rows []uint8, ordinals []uint32, out []float32)
TEXT ·l2Uint8NEON(SB), NOSPLIT, $0-96
	LIST(UINT8, L2, 0)

// func l2RangeUint8NEON(query []float32, rows []uint8, out []float32)
TEXT ·l2RangeUint8NEON(SB), NOSPLIT, $0-72
	RANGE(UINT8, L2, 0)
