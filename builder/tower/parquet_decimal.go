package tower

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// maxDecimalBytes is the longest integer of a decimal that is read: 32 bytes hold the 76
// digits that are the most of a common writer.
const maxDecimalBytes = 64

// checkDecimals checks the lengths of the batch's decimals.
func (c *column) checkDecimals() error {
	for _, b := range c.chunk.Bytes[:min(c.chunk.Count, len(c.chunk.Bytes))] {
		if len(b) > maxDecimalBytes {
			return fmt.Errorf("a decimal of %d bytes; accepted: up to %d", len(b), maxDecimalBytes)
		}
	}
	if len(c.chunk.Fixed) > 0 && c.chunk.Leaf.TypeLength() > maxDecimalBytes {
		return fmt.Errorf("a decimal of %d bytes; accepted: up to %d", c.chunk.Leaf.TypeLength(), maxDecimalBytes)
	}
	return nil
}

// unscaled returns the integer that a decimal is stored as. small is false if it does not
// fit into n, and then it is in digits.
func (c *column) unscaled(i int) (n int64, digits *big.Int, small bool) {
	var b []byte
	switch {
	case c.chunk.Int32s != nil:
		return int64(c.chunk.Int32s[i]), nil, true
	case c.chunk.Int64s != nil:
		return c.chunk.Int64s[i], nil, true
	case c.chunk.Fixed != nil:
		b = c.chunk.Fixed[i]
	default:
		b = c.chunk.Bytes[i]
	}
	// Two's complement, the most significant byte first.
	for len(b) > 8 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:]
	}
	negative := len(b) > 0 && b[0] >= 0x80
	if len(b) <= 8 {
		if negative {
			n = -1
		}
		for _, x := range b {
			n = n<<8 | int64(x)
		}
		return n, nil, true
	}
	digits = new(big.Int).SetBytes(b)
	if negative {
		digits.Sub(digits, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return 0, digits, false
}

// decimalText returns all digits of a decimal.
func (c *column) decimalText(i int) string {
	n, digits, small := c.unscaled(i)
	text := strconv.FormatInt(n, 10)
	if !small {
		text = digits.String()
	}
	if c.scale == 0 {
		return text
	}
	sign := ""
	if text[0] == '-' {
		sign, text = "-", text[1:]
	}
	if missing := c.scale + 1 - len(text); missing > 0 {
		text = strings.Repeat("0", missing) + text
	}
	point := len(text) - c.scale
	return sign + text[:point] + "." + text[point:]
}

// powers are those of ten that a double has exactly.
var powers = [...]float64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// decimalFloat returns the double that is nearest to a decimal.
func (c *column) decimalFloat(i int) float64 {
	const exact = 1 << 53
	if n, _, small := c.unscaled(i); small && -exact <= n && n <= exact && c.scale < len(powers) {
		return float64(n) / powers[c.scale] // one division of exact numbers, rounded once
	}
	f, _ := strconv.ParseFloat(c.decimalText(i), 64) // it is digits, and far below the largest double
	return f
}
