package sysexits

import (
	"errors"
	"fmt"
	"testing"
)

func TestCode(t *testing.T) {
	locked := New(TempFail, "locked", errors.New("held"))
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("plain"), 1},
		{locked, 75},
		{fmt.Errorf("open state: %w", locked), 75},
		{errors.Join(errors.New("other"), locked), 75},
	} {
		if got := Code(tc.err); got != tc.want {
			t.Errorf("Code(%v) = %d; want %d", tc.err, got, tc.want)
		}
	}
}
