package model

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Patches says how an image becomes a row of vectors: it is cut into patches that do not overlap, and each is projected.
type Patches struct {
	Channels     int
	Image, Patch [2]int // height, width
}

func (p *Patches) validate() error {
	if p.Channels < 1 || p.Channels > 1<<12 {
		return fmt.Errorf(`"num_channels" must be positive, not %d`, p.Channels)
	}
	for i, name := range []string{"height", "width"} {
		switch {
		case p.Image[i] < 1 || p.Image[i] > 1<<14 || p.Patch[i] < 1:
			return fmt.Errorf(`the %s of "image_size" %v and of "patch_size" %v must be positive`, name, p.Image, p.Patch)
		case p.Image[i]%p.Patch[i] != 0:
			return fmt.Errorf(`the %s of "image_size" %v is no multiple of that of "patch_size" %v`, name, p.Image, p.Patch)
		}
	}
	return nil
}

// Count returns the number of patches of an image.
func (p *Patches) Count() int { return p.Image[0] / p.Patch[0] * (p.Image[1] / p.Patch[1]) }

// Pixels returns the number of values of an image.
func (p *Patches) Pixels() int { return p.Channels * p.Image[0] * p.Image[1] }

// shape is that of the projection's weight: a convolution whose stride is its kernel.
func (p *Patches) shape(hidden int) []int { return []int{hidden, p.Channels, p.Patch[0], p.Patch[1]} }

// tensors are those of the stage that reads images.
func (d *Description) imageTensors() []TensorSpec {
	n := d.Names
	return []TensorSpec{
		{n.ClassToken, []int{1, 1, d.Hidden}},
		{n.Embed + ".weight", d.Image.shape(d.Hidden)}, {n.Embed + ".bias", []int{d.Hidden}},
		{n.Positions, []int{1, d.Image.Count() + 1, d.Hidden}},
	}
}

// imageStem builds x [B, 1+patches, H] from pixels [B,C,height,width].
func (d *Description) imageStem(o Ops, compute dtypes.DType, pixels *Node) *Node {
	n, p := d.Names, d.Image
	b := pixels.Shape().Dim(0)
	rows, columns := p.Image[0]/p.Patch[0], p.Image[1]/p.Patch[1]
	cast := func(name string) *Node { return ConvertDType(o.Param(name), compute) }
	// A convolution without overlap is a matrix product over patches: [B,C,r,h,c,w] to [B, r*c, C*h*w].
	x := Reshape(ConvertDType(pixels, compute), b, p.Channels, rows, p.Patch[0], columns, p.Patch[1])
	x = Reshape(TransposeAllAxes(x, 0, 2, 4, 1, 3, 5), b, rows*columns, p.Channels*p.Patch[0]*p.Patch[1])
	x = contract(x, Reshape(cast(n.Embed+".weight"), d.Hidden, -1), 1)
	x = Add(x, ExpandLeftToRank(cast(n.Embed+".bias"), 3))
	x = Concatenate([]*Node{BroadcastToDims(cast(n.ClassToken), b, 1, d.Hidden), x}, 1)
	return Add(x, cast(n.Positions))
}

// checkImages completes an input of images: one token for the class, one for each patch.
func (d *Description) checkImages(in Input) (Input, error) {
	if in.IDs != nil || in.Positions != nil || in.Segments != nil || in.Types != nil {
		if in.span == 0 { // not completed by an earlier check
			return in, badInput("a %s reads images, not tokens: give \"pixel_values\"", d.ModelType)
		}
	}
	if want := [3]int{d.Image.Channels, d.Image.Image[0], d.Image.Image[1]}; in.image != [3]int{} && in.image != want {
		return in, badInput("images are %v, channels, height and width; the model reads %v: resize them first", in.image, want)
	}
	each := d.Image.Pixels()
	if in.Rows < 1 || len(in.Pixels) != in.Rows*each {
		return in, badInput("%d values are not %d images of [%d %d %d]", len(in.Pixels), in.Rows, d.Image.Channels, d.Image.Image[0], d.Image.Image[1])
	}
	in.Length = d.Image.Count() + 1
	in.span = in.Length
	in.Segments = make([]int32, in.Rows*in.Length)
	for i := range in.Segments {
		in.Segments[i] = 1
	}
	return in, nil
}
