package probe

import (
	"math"
	"slices"
)

// Quantile returns the value that a share of the ascending list does not exceed, the
// nearest there is; 0 of none.
func Quantile(ascending []float64, share float64) float64 {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[int(share*float64(len(ascending)-1)+0.5)]
}

// Median returns the median of a list, which it leaves as it is.
func Median(list []float64) float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return Quantile(list, 0.5)
}

// Mean returns the mean of a list, 0 of none, and its standard error.
func Mean(list []float64) (mean, standardError float64) {
	n := float64(len(list))
	if n == 0 {
		return 0, 0
	}
	for _, x := range list {
		mean += x
	}
	mean /= n
	if n < 2 {
		return mean, 0
	}
	var square float64
	for _, x := range list {
		square += float64((x - mean) * (x - mean))
	}
	return mean, math.Sqrt(square / (n - 1) / n)
}
