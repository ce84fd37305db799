package rawbson

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The types behind one are those that MongoDB sorts behind it.
func TestTypesAbove(t *testing.T) {
	if got := TypesAbove(bson.TypeMaxKey, false); len(got) != 0 {
		t.Errorf("behind MaxKey: %v", got)
	}
	if got := TypesAbove(bson.TypeMinKey, false); len(got) != 20 || got[0] != 6 {
		t.Errorf("behind MinKey: %v", got)
	}
	a, b := TypesAbove(bson.TypeInt32, false), TypesAbove(bson.TypeDecimal128, false)
	if len(a) != len(b) || a[0] != 2 {
		t.Errorf("behind numbers: %v, %v; want the same, from strings on", a, b)
	}
}
