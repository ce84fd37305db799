package rawbson

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// TypesAbove returns the types that MongoDB sorts after a type.
func TestTypesAbove(t *testing.T) {
	if got := TypesAbove(bson.TypeMaxKey, false); len(got) != 0 {
		t.Errorf("after MaxKey: %v", got)
	}
	if got := TypesAbove(bson.TypeMinKey, false); len(got) != 20 || got[0] != 6 {
		t.Errorf("after MinKey: %v", got)
	}
	a, b := TypesAbove(bson.TypeInt32, false), TypesAbove(bson.TypeDecimal128, false)
	if len(a) != len(b) || a[0] != 2 {
		t.Errorf("after numbers: %v, %v; want the same types, beginning with strings", a, b)
	}
}
