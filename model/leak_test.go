package model

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// fullDevice is a backend with room for so many buffers more. It counts those that live.
type fullDevice struct {
	compute.Backend
	room, live int
}

type countedBuffer struct {
	compute.Buffer
	of *fullDevice
}

func (b countedBuffer) Finalize() error {
	b.of.live--
	return b.Buffer.Finalize()
}

var errFull = errors.New("no room")

func (d *fullDevice) counted(b compute.Buffer, err error) (compute.Buffer, error) {
	if err != nil {
		return nil, err
	}
	d.room--
	d.live++
	return countedBuffer{b, d}, nil
}

func (d *fullDevice) BufferFromFlatData(n compute.DeviceNum, flat any, s shapes.Shape) (compute.Buffer, error) {
	if d.room == 0 {
		return nil, errFull
	}
	return d.counted(d.Backend.BufferFromFlatData(n, flat, s))
}

func (d *fullDevice) NewSharedBuffer(n compute.DeviceNum, s shapes.Shape) (compute.Buffer, any, error) {
	if d.room == 0 {
		return nil, nil, errFull
	}
	b, flat, err := d.Backend.NewSharedBuffer(n, s)
	b, err = d.counted(b, err)
	return b, flat, err
}

// TestFullDeviceKeepsNothing sees that what was copied to a device before it was full is freed.
func TestFullDeviceKeepsNothing(t *testing.T) {
	b := goBackend(t)
	m := tuned(t, b, filepath.Join(goldenModels, "llama"), tunings[0].make)
	_, targets := packedBatch(m.D)
	defer func() { m.Backend = b }()
	for name, c := range map[string]struct {
		buffers int
		do      func() error
	}{
		"gradients": {len(m.Vectors), func() error { _, err := m.NewGradients(); return err }},
		"targets":   {3, func() error { _, err := m.headData(targets); return err }},
	} {
		for room := range c.buffers {
			d := &fullDevice{Backend: b, room: room}
			m.Backend = d
			if err := c.do(); !errors.Is(err, errFull) {
				t.Errorf("%s with room for %d buffers: %v", name, room, err)
			}
			if d.live != 0 || d.room != 0 {
				t.Errorf("%s with room for %d buffers: %d live on", name, room, d.live)
			}
		}
	}
}
