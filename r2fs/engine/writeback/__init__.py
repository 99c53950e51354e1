"""Write-back: sends pending inodes and deletes to the bucket, in an order without loss."""
